"""Explanations in the forms of other libraries: tables of pandas and polars, SHAP's."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import get_config

from ptsne.explanation.source import Array

if TYPE_CHECKING:
    from ptsne.explanation.explanation import Explanation

LIBRARIES = ("auto", "pandas", "polars")
METHODS = ("contributions", "path", "paired")


def to_frame(why: "Explanation", library: str) -> Any:
    """Tidy table of an explanation.

    Parameters
    ----------
    why : Explanation
        Of N rows.
    library : {"auto", "pandas", "polars"}
        Whose table; "auto" is polars where scikit-learn's configuration asks for it.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame
        One line per row and feature.

    Raises
    ------
    ValueError
        If `library` is another word.
    """
    if library not in LIBRARIES:
        raise ValueError(f'library must be "auto", "pandas" or "polars"; got {library!r}')
    if library == "auto":
        library = "polars" if get_config()["transform_output"] == "polars" else "pandas"
    return _installed(library).DataFrame(_columns(why))


def to_shap(why: "Explanation", method: str) -> Any:
    """SHAP's form of an explanation.

    Parameters
    ----------
    why : Explanation
        Of N rows.
    method : {"contributions", "path", "paired"}
        How the way from the baseline is attributed.

    Returns
    -------
    shap.Explanation
        Values (N, D, K) and base values (N, K).

    Raises
    ------
    ValueError
        If the method is another word.
    """
    if method not in METHODS:
        raise ValueError(f'method must be "contributions", "path" or "paired"; got {method!r}')
    values = why.contributions if method == "contributions" else _ways(why, method)
    base = why.offset if method == "contributions" else why._source.places(why.baseline)
    return _installed("shap").Explanation(
        values=np.ascontiguousarray(values.transpose(0, 2, 1)),
        base_values=base,
        data=why.X,
        feature_names=list(why.feature_names),
        output_names=[f"map {k + 1}" for k in range(values.shape[1])],
    )


def _columns(why: "Explanation") -> dict[str, Array]:
    N, K, D = why.weight.shape
    columns = {
        "row": np.repeat(np.arange(N), D),
        "feature": np.tile(np.array(why.feature_names, dtype=object), N),
        "value": why.X.ravel(),
        "baseline": why.baseline.ravel(),
        "importance": why.importance().ravel(),
    }
    for name, values in (("contribution", why.contributions), ("weight", why.weight)):
        columns |= {f"{name}_{k + 1}": values[:, k].ravel() for k in range(K)}
    return columns


def _ways(why: "Explanation", method: str) -> Array:
    """Displacement (N, K, D) that each feature adds on the way from the baseline."""
    ends = why.baseline.astype(np.float64), why.X.astype(np.float64)
    if method == "paired":
        return why._source.paired_ways(*ends)
    axes = np.eye(why.weight.shape[1])
    return np.stack([why._source.path_parts(*ends, axis) for axis in axes], 1)


def _installed(library: str) -> ModuleType:
    try:
        return import_module(library)
    except ImportError:
        raise ImportError(f"{library} is not installed; pip install {library}") from None
