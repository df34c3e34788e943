"""Several networks as one: ``sum_i a_i F_i(x)``, whose W and b are the sums of theirs."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor, nn

MAKING = "Ensemble([network, another], weights=[0.7, 0.3])"


class Ensemble(nn.Module):
    r"""Weighted sum of networks that take the same input, as one network.

    .. math::
        F(x) = \sum_i a_i F_i(x) = \Big(\sum_i a_i W_i\Big) x + \sum_i a_i b_i

    It helps classifiers, whose errors differ; take logits, not probabilities, if the sum shall stay
    piecewise linear. It does not help maps: the mean of two places of a row that is between
    islands is a place where no row belongs.

    Parameters
    ----------
    members : sequence of nn.Module
        The networks :math:`F_i`, with outputs of equal shape. They are held, not copied:
        `train` and `eval` of the ensemble set theirs.
    weights : sequence of float, optional
        The factors :math:`a_i`, used as they are; equal and of sum 1 by default.

    Raises
    ------
    TypeError
        If a member is no torch network.
    ValueError
        If there is no member, or if the weights are not one finite number each.

    References
    ----------
    Li, Liu, Bhavya, Bremer and Pascucci 2023, Instance-wise Linearization of Neural Network for
    Model Interpretation, section 3.7.

    Examples
    --------
    >>> import torch
    >>> from ptsne import Ensemble, linearize
    >>> nets = [torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()) for _ in range(2)]
    >>> both = Ensemble(nets, weights=[0.7, 0.3]).double().eval()
    >>> x = torch.rand(5, 4, dtype=torch.float64)
    >>> first, second = (linearize(net, x).weight() for net in nets)
    >>> torch.allclose(linearize(both, x).weight(), 0.7 * first + 0.3 * second)
    True
    """

    def __init__(
        self, members: Sequence[nn.Module], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(_checked_members(members))
        self.weights = _checked_weights(weights, len(self.members))
        self.train(any(member.training for member in self.members))

    def forward(self, x: Tensor) -> Tensor:
        """Weighted sum of the members' outputs.

        Parameters
        ----------
        x : Tensor of shape (B, ...)
            Batch, as the members take it.

        Returns
        -------
        Tensor of shape (B, ...)
            The sum.

        Raises
        ------
        ValueError
            If the members' outputs differ in shape.

        Examples
        --------
        >>> import torch
        >>> from ptsne import Ensemble
        >>> both = Ensemble([torch.nn.ReLU(), torch.nn.Sigmoid()], weights=[0.7, 0.3])
        >>> both(torch.tensor([[-10.0, 0.0, 10.0]]))
        tensor([[1.3619e-05, 1.5000e-01, 7.3000e+00]])
        """
        outputs = [member(x) for member in self.members]
        shapes = {tuple(y.shape) for y in outputs}
        if len(shapes) > 1:
            raise ValueError(
                f"the members of an ensemble must give outputs of one shape; got {sorted(shapes)}"
            )
        terms = [a * y for a, y in zip(self.weights, outputs, strict=True)]
        return torch.stack(terms).sum(0)

    def extra_repr(self) -> str:
        """Tell the weights, for `print`.

        Returns
        -------
        str
            The weights in four digits.

        Examples
        --------
        >>> import torch
        >>> from ptsne import Ensemble
        >>> Ensemble([torch.nn.ReLU(), torch.nn.Tanh()], weights=[0.7, 0.3]).extra_repr()
        'weights=[0.7, 0.3]'
        """
        return "weights=[" + ", ".join(f"{a:.4g}" for a in self.weights) + "]"


def _checked_members(members: Sequence[nn.Module]) -> list[nn.Module]:
    if isinstance(members, nn.Module) and not isinstance(members, nn.ModuleList):
        raise TypeError(f"expected a list of networks, got one {type(members).__name__}: {MAKING}")
    found = list(members)
    for member in found:
        if not isinstance(member, nn.Module):
            raise TypeError(
                f"a member must be a torch network (nn.Module), got {type(member).__name__}; "
                "of a fitted ParametricTSNE that is its network_"
            )
    if not found:
        raise ValueError(f"an ensemble needs at least one network: {MAKING}")
    return found


def _checked_weights(weights: Sequence[float] | None, n_members: int) -> list[float]:
    if weights is None:
        return [1 / n_members] * n_members
    found = [float(a) for a in weights]
    if len(found) != n_members or not all(map(isfinite, found)):
        raise ValueError(
            f"weights must be one finite number for each of {n_members} networks; got {found}"
        )
    return found
