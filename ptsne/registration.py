"""Two versions of a map, laid over each other.

A t-SNE map has no up and no left: fitted again, it comes out rotated, mirrored, shifted. Before two
versions are compared, the newer one is moved rigidly so that rows that both know lie as near to
each other as can be; what is left is what really changed.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Places = NDArray[Any]


class Map(Protocol):
    """A fitted map."""

    def transform(self, X: Any) -> Any:
        """Places (N, K) of rows."""


@dataclass(frozen=True)
class Registration:
    r"""How the newer version of a map lies over the older one: ``s y R + t``.

    Attributes
    ----------
    rotation : ndarray of shape (K, K)
        R, orthogonal: a rotation, or with a reflection.
    scale : float
        s; 1 unless asked for.
    shift : ndarray of shape (K,)
        t, in units of the old map.
    residual : ndarray of shape (N,)
        Distance of each common row from its old place after that, in units of the old map.
    spread : float
        Root mean square distance of the old places from their middle.
    new : Map or None
        The newer map, where it was given as one.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne import register
    >>> Y = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> found = register(Y, Y * [1, -1] + 5)
    >>> found.is_mirrored, round(found.disparity, 6)
    (True, 0.0)
    >>> np.allclose(found.apply(Y * [1, -1] + 5), Y)  # places of the new map, laid on the old one
    True
    """

    rotation: Places
    scale: float
    shift: Places
    residual: Places
    spread: float
    new: Map | None = None

    @property
    def is_mirrored(self) -> bool:
        """Whether the newer version is a mirror image."""
        return bool(np.linalg.det(self.rotation) < 0)

    @property
    def disparity(self) -> float:
        """Root mean square residual over the spread: 0 is the same map, near 1 another one."""
        return float(np.sqrt(np.mean(self.residual**2))) / (self.spread or 1.0)

    def apply(self, Y: Any) -> Places:
        """Places on the newer map as places on the older one.

        Parameters
        ----------
        Y : array-like of shape (M, K)
            Places on the newer map.

        Returns
        -------
        ndarray of shape (M, K)
            Places on the older map.

        Examples
        --------
        >>> import numpy as np
        >>> from ptsne import register
        >>> Y = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> found = register(Y, Y + 5)
        >>> np.allclose(found.apply([[5.0, 5.0]]), [[0, 0]])
        True
        """
        moved: Places = self.scale * (np.asarray(Y) @ self.rotation) + self.shift
        return moved

    def transform(self, X: Any) -> Places:
        """Place rows with the newer map, in the frame of the older one.

        Parameters
        ----------
        X : array-like of shape (M, D)
            Rows.

        Returns
        -------
        ndarray of shape (M, K)
            Places.

        Raises
        ------
        ValueError
            If only places were registered, not a map.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from ptsne import ParametricTSNE, register
        >>> X = load_iris().data
        >>> old, new = (ParametricTSNE(max_iter=30, random_state=seed).fit(X) for seed in (0, 1))
        >>> found = register(old, new, X)
        >>> moved = np.linalg.norm(found.transform(X) - old.transform(X), axis=1)
        >>> bool(abs(moved - found.residual).max() < 1e-9)
        True
        """
        if self.new is None:
            raise ValueError(
                "only places were registered; call register(old, new, X) with the fitted new map"
            )
        return self.apply(self.new.transform(X))

    def __str__(self) -> str:
        """Say it in a sentence."""
        middle, high = np.quantile(self.residual, [0.5, 0.95])
        how = "mirrored and rotated" if self.is_mirrored else "rotated"
        return (
            f"{how}, scaled by {self.scale:.4g} and shifted, {len(self.residual)} common rows are "
            f"{middle:.3g} (median), {high:.3g} (95th percentile) and "
            f"{self.residual.max():.3g} (largest) map units from their old places; the map's "
            f"spread is {self.spread:.3g}"
        )


def register(old: Any, new: Any, X: Any = None, *, scale: bool = False) -> Registration:
    """Lay the newer version of a map over the older one, by the rows that both know.

    The rotation, reflection and shift with the least sum of squared distances (orthogonal
    Procrustes), and with `scale` the factor too. Nothing else is done: no row is moved on its own.

    Parameters
    ----------
    old, new : fitted maps, or arrays of shape (N, K)
        The two versions, or the places of the same rows on each.
    X : array-like of shape (N, D), optional
        Common rows, where a map is given.
    scale : bool, default=False
        Whether the newer version may be made larger or smaller.

    Returns
    -------
    Registration
        The transformation and what is left.

    Raises
    ------
    ValueError
        If places are not of the same rows, or dimensions differ.

    References
    ----------
    Schönemann 1966, A generalized solution of the orthogonal Procrustes problem, Psychometrika 31.

    Examples
    --------
    >>> import numpy as np
    >>> from ptsne import register
    >>> Y = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> turned = Y @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 5
    >>> bool(register(Y, turned).residual.max() < 1e-12)
    True
    """
    Y, Z = (_places(version, X) for version in (old, new))
    if Y.shape != Z.shape or Y.ndim != 2 or not len(Y):
        raise ValueError(
            f"both versions must place the same rows in the same dimension, (N, K); got "
            f"{Y.shape} and {Z.shape}"
        )
    middle, center = Y.mean(0), Z.mean(0)
    A, B = Z - center, Y - middle
    u, strength, vt = np.linalg.svd(A.T @ B)
    rotation = u @ vt
    energy = float((A**2).sum())
    factor = float(strength.sum()) / energy if scale and energy > 0 else 1.0
    shift = middle - factor * center @ rotation
    residual = np.linalg.norm(factor * (Z @ rotation) + shift - Y, axis=1)
    spread = float(np.sqrt((B**2).sum(1).mean()))
    fitted = new if hasattr(new, "transform") else None
    return Registration(rotation, factor, shift, residual, spread, fitted)


def _places(version: Any, X: Any) -> NDArray[np.float64]:
    """Places of the common rows."""
    if hasattr(version, "transform"):
        if X is None:
            raise ValueError("to register maps, pass rows that both know: register(old, new, X)")
        version = version.transform(X)
    places = np.asarray(version, dtype=np.float64)
    if not np.isfinite(places).all():
        raise ValueError("places must be finite numbers; leave out rows without a place")
    return places
