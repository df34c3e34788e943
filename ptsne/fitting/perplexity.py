"""The perplexity that so many rows allow."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

NEIGHBORS_PER_PERPLEXITY = 3


def lower_perplexity(perplexity: float | Sequence[float], n_samples: int) -> Any:
    """Perplexities that `n_samples` rows allow, (N - 1) / 3 at most, with a warning.

    Parameters
    ----------
    perplexity : float or sequence of float
        As it was asked for.
    n_samples : int
        Rows N.

    Returns
    -------
    float or list of float
        One number for one, else ascending and each once.

    Raises
    ------
    ValueError
        If it is not positive.
    """
    try:
        values = np.atleast_1d(np.asarray(perplexity, dtype=float))
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if values.ndim != 1 or not len(values) or not ((values > 0) & np.isfinite(values)).all():
        raise ValueError(f"perplexity must be positive, or a list of such; got {perplexity!r}")
    highest = max(1.0, (n_samples - 1) / NEIGHBORS_PER_PERPLEXITY)
    if values.max() > highest:
        message = (
            f"perplexity {perplexity} is too high for {n_samples} rows; using {highest:.4g}, a "
            "third of the other rows; lower perplexity or pass more rows"
        )
        warnings.warn(message, UserWarning, stacklevel=5)
    lowered = np.minimum(values, highest)
    return float(lowered[0]) if np.ndim(perplexity) == 0 else sorted(set(lowered.tolist()))
