"""The decoder of `inverse_transform`, from places to rows."""

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from ptsne.fitting.learned import Model
from ptsne.rows import float32_copy
from ptsne.training import Journal, ProgressBar, train_inverse

MISSING = 0.05
"""Share of the rows before the first at hand: a sample has fewer, newer rows alone have more."""


def fit_inverse(model: Model) -> nn.Module:
    """Train it on the rows of `fit`, which have to be at hand.

    Parameters
    ----------
    model : Model
        Fitted; not changed.

    Returns
    -------
    nn.Module
        y -> x.

    Raises
    ------
    ValueError
        If the rows are not at hand any more.
    """
    rows, parameters = model._training_rows, model.get_params(deep=False)
    numbers = model._training_numbers
    if rows is None or (numbers is not None and numbers[0] > MISSING * (numbers[-1] + 1)):
        raise ValueError(
            "the decoder of inverse_transform was not trained before this estimator was "
            "pickled or saved; call inverse_transform once after fit, then pickle or save"
        )
    seed = check_random_state(parameters["random_state"]).randint(2**31 - 1)
    generator = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(float32_copy(rows))
    y = torch.from_numpy(model._place(rows).astype(np.float32))
    with ProgressBar(enabled=parameters["verbose"] > 0) as bar:
        return train_inverse(x, y, Journal([bar]), generator)
