"""Explanations in the forms of other libraries: tables of pandas and polars, SHAP's, captum's."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn import get_config
from torch import Tensor

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
    is_local = method == "contributions"
    values = why.contributions if is_local else why.displacement(method=method)
    base = why.offset if is_local else why._source.places(why.baseline)
    return _installed("shap").Explanation(
        values=np.ascontiguousarray(values.transpose(0, 2, 1)),
        base_values=base,
        data=why.X,
        feature_names=list(why.feature_names),
        output_names=[f"map {k + 1}" for k in range(values.shape[1])],
    )


def to_captum(why: "Explanation", target: int, method: str) -> tuple[Tensor, Tensor]:
    """Captum's form of an explanation.

    Parameters
    ----------
    why : Explanation
        Of N rows.
    target : int
        Coordinate of the map.
    method : {"path", "paired"}
        How the way from the baseline is attributed.

    Returns
    -------
    attributions : Tensor of shape (N, D)
        What each feature adds to the coordinate.
    delta : Tensor of shape (N,)
        Their sum less the change of the coordinate: 0 up to rounding.

    Raises
    ------
    ValueError
        If there is no such coordinate.
    """
    n_outputs = why.Y.shape[1]
    if not 0 <= target < n_outputs:
        raise ValueError(f"target must be a coordinate, 0 to {n_outputs - 1}; got {target!r}")
    values = why.displacement(method=method)[:, target]
    change = (why.Y - why._source.places(why.baseline))[:, target]
    return torch.from_numpy(values), torch.from_numpy(values.sum(1) - change)


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


def _installed(library: str) -> ModuleType:
    try:
        return import_module(library)
    except ImportError:
        raise ImportError(f"{library} is not installed; pip install {library}") from None
