"""What an AnnData holds, by its name."""

from typing import Any

from ptsne.rows import Annotated


def rows_of(adata: Any, layer: str | None = None, use_rep: str | None = None) -> Any:
    """The matrix asked for, with the names of its columns where it has any.

    Parameters
    ----------
    adata : AnnData of shape (N, D)
        Observations.
    layer : str or None
        ``adata.layers[layer]``, with the names of the variables.
    use_rep : str or None
        ``adata.obsm[use_rep]``.

    Returns
    -------
    AnnData, Annotated or array of shape (N, D) or (N, L)
        `adata` itself, for its ``X``, where neither is named.

    Raises
    ------
    ValueError
        If both are named, or there is no such entry.
    """
    if layer is not None and use_rep is not None:
        raise ValueError("layer and use_rep both say what to map; pass one of them")
    if layer is not None:
        return Annotated(entry(adata.layers, "layers", layer), adata.var_names)
    return adata if use_rep is None else entry(adata.obsm, "obsm", use_rep)


def entry(entries: Any, place: str, key: str) -> Any:
    """One entry of a part of an AnnData.

    Parameters
    ----------
    entries : mapping
        The part.
    place : str
        Its name.
    key : str
        Name of the entry.

    Returns
    -------
    object
        The entry.

    Raises
    ------
    ValueError
        If it is not there; the message names those that are.
    """
    if key not in entries:
        there = ", ".join(repr(name) for name in entries) or "nothing"
        raise ValueError(f"adata.{place} has no {key!r}; it has {there}")
    return entries[key]
