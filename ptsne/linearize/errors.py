"""Errors of the linearizer: it refuses, it never guesses."""


class LinearizationError(RuntimeError):
    """The network could not be written as ``W x + b`` at these rows.

    Examples
    --------
    >>> import torch
    >>> from ptsne import LinearizationError, linearize
    >>> class Gamma(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.lgamma(x)
    >>> try:
    ...     linearize(Gamma().eval(), torch.rand(2, 3))
    ... except LinearizationError as error:
    ...     print("lgamma" in str(error).lower())
    True
    """


class UnsupportedOperation(LinearizationError):
    """The network uses an operation that no rule covers; the message names it and its module.

    Examples
    --------
    >>> import torch
    >>> from ptsne import UnsupportedOperation, linearize
    >>> class Gamma(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.lgamma(x)
    >>> try:
    ...     linearize(Gamma().eval(), torch.rand(2, 3))
    ... except UnsupportedOperation as error:
    ...     print("lgamma" in str(error).lower())
    True
    """


class CompletenessError(LinearizationError):
    """``F(x) - W x`` is not the sum of the bias terms: part of the network escaped the graph.

    Examples
    --------
    >>> import torch
    >>> from ptsne.linearize import CompletenessError, gain, linearization_rule, linearize
    >>> class Third(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, z):
    ...         ctx.save_for_backward(z)
    ...         return z**3
    ...
    ...     @staticmethod
    ...     def backward(ctx, gradient):
    ...         return 3 * ctx.saved_tensors[0] ** 2 * gradient
    >>> class Net(torch.nn.Module):
    ...     def forward(self, x):
    ...         return Third.apply(x)
    >>> @linearization_rule(Third)
    ... def third(operation):
    ...     (z,) = operation.node.saved_tensors
    ...     return gain(operation, 5 * z)  # not z ** 3 = (z ** 2) z
    >>> try:
    ...     linearize(Net().eval(), torch.tensor([[2.0]])).weight()
    ... except CompletenessError:
    ...     print("refused")
    refused
    """
