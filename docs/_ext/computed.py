"""``{computed}``: the code of functions beside the equation that they compute, folded.

The code is read from the package when the site is built, without its docstrings; a name that is not
there stops the build.
"""

import ast
import inspect
import textwrap
from functools import reduce
from html import escape
from importlib import import_module

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def function(name):
    """The function of a full name; None where there is none."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            return reduce(getattr, parts[end:], import_module(".".join(parts[:end])))
        except (ImportError, AttributeError):  # a class, or nothing
            continue
    return None


def code_of(name):
    """Source of a function without its docstring."""
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(function(name))))
    definition = ast.parse(text).body[0]
    first, lines = definition.body[0], text.splitlines()
    if ast.get_docstring(definition) is not None:
        del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(lines)


class Computed(SphinxDirective):
    """Full names of functions, separated by spaces."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        names = self.arguments[0].split()
        missing = [name for name in names if function(name) is None]
        if missing:
            raise self.error(f"there is no {', '.join(missing)}")
        short = ", ".join(f"<code>{escape(name.removeprefix('ptsne.'))}</code>" for name in names)
        opening = f'<details class="code"><summary>Computed by {short}</summary>'
        text = "\n\n\n".join(map(code_of, names))
        block = nodes.literal_block(text, text, language="python", classes=["not-to-be-run"])
        return [
            nodes.raw("", opening, format="html"),
            block,
            nodes.raw("", "</details>", format="html"),
        ]


def setup(app):
    app.add_directive("computed", Computed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
