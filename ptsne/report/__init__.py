"""One interactive page of a map, as a file or served live: ``ptsne.report(map_, X, y)``."""

import sys
from types import ModuleType

from ptsne.report.page import report

__all__ = ["report"]


class _Package(ModuleType):
    """The package answers to a call, so that its name is also the name of what it does."""

    __call__ = staticmethod(report)


sys.modules[__name__].__class__ = _Package
