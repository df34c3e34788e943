"""What a rule sees of one operation, and what it answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .calls import Call, Leaf, Role, where
from .errors import UnsupportedOperation

Gradients = tuple[Tensor | None, ...]
Pull = Callable[[Gradients, Gradients], Gradients]


@dataclass(frozen=True)
class Held:
    """An operation with its gates held: ``y = A z + sum(constants)``.

    Attributes
    ----------
    pull : callable or None
        Replaces the derivative: ``pull(incoming, outgoing)`` gets the gradients that autograd would
        send to the operation's inputs and those at its outputs, and returns the ones to send.
        None keeps autograd's own. It must be linear in both, and made of torch operations.
    constants : mapping of str to Tensor or float
        Parts of the output that do not depend on x, broadcastable to it; keys name bias terms.
    blocked : tuple of int
        Inputs that are gates: nothing upstream of them needs a rule.
    remainder : bool
        Whether ``y - A z`` is the constant: for plateaus, and for every operation of the tangent.

    Examples
    --------
    >>> import torch
    >>> from ptsne.linearize import Held, linearization_rule, linearize
    >>> class Cubed(torch.autograd.Function):
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
    ...         return Cubed.apply(x)
    >>> @linearization_rule(Cubed)
    ... def cubed(operation):
    ...     (z,) = operation.node.saved_tensors
    ...     return Held(pull=lambda incoming, outgoing: (z**2 * outgoing[0],))
    >>> linearize(Net().eval(), torch.tensor([[2.0]])).weight(0)
    tensor([[[4.]]])
    """

    pull: Pull | None = None
    constants: Mapping[str, Tensor | float] = field(default_factory=dict)
    blocked: tuple[int, ...] = ()
    remainder: bool = False


@dataclass(frozen=True)
class Operation:
    """One node of the graph as a rule sees it.

    Attributes
    ----------
    name : str
        As `operation_name` spells it: ``"gelu"``.
    node : torch.autograd.graph.Node
        The node, with what autograd saved; a custom ``autograd.Function`` has ``saved_tensors``.
    edges : tuple of int
        Positions, among the node's inputs, of those that depend on x.
    ranks : tuple of int
        For each of `edges`, how much its producer is a gate (0: not at all).
    call : Call or None
        The recorded call; None for custom functions.
    tangent : bool
        Whether the Jacobian is asked for, rather than the secant.
    names : callable
        From a tensor to the name of the parameter or buffer it is (a view of), or None.

    Examples
    --------
    >>> import torch
    >>> from ptsne.linearize import Operation, gain, linearization_rule, linearize
    >>> class Cubed(torch.autograd.Function):
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
    ...         return Cubed.apply(x)
    >>> @linearization_rule(Cubed)
    ... def cube(operation: Operation):
    ...     print(operation.edges, operation.tangent)
    ...     (z,) = operation.node.saved_tensors
    ...     return gain(operation, z**2)
    >>> linearize(Net().eval(), torch.tensor([[2.0]])).weight(0)
    (0,) False
    tensor([[[4.]]])
    """

    name: str
    node: Any
    edges: tuple[int, ...]
    ranks: tuple[int, ...]
    path: str
    call: Call | None
    tangent: bool
    names: Callable[[Tensor], str | None]

    @property
    def label(self) -> str:
        """Name of a bias term of this operation that belongs to no parameter."""
        return f"{self.path}.{self.name}" if self.path else self.name

    @property
    def input(self) -> Tensor:
        """The only input that depends on x."""
        if len(self.edges) != 1:
            raise self.unsupported("more than one input depends on x")
        return self.inputs[0]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Inputs that depend on x, in the order of `edges`."""
        leaves = [leaf for leaf in self.recorded.leaves() if leaf.role is Role.ACTIVE]
        values = tuple(leaf.value for leaf in leaves if leaf.value is not None)
        if len(values) != len(self.edges):
            raise self.unsupported("its inputs could not be recorded")
        return values

    @property
    def recorded(self) -> Call:
        """The recorded call."""
        if self.call is None:
            raise self.unsupported("the call was not seen")
        return self.call

    def argument(self, name: str) -> Any:
        """Argument of the recorded call.

        Parameters
        ----------
        name : str
            Its name in ATen's schema.

        Returns
        -------
        number, Tensor, Leaf or None
            A tensor is constant; a `Leaf` depends on x or was not kept; None: not given.

        Examples
        --------
        >>> import torch
        >>> from ptsne.linearize import gain, linearization_rule, linearize
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.hypot(x, torch.tensor(3.0))
        >>> @linearization_rule("hypot")  # sqrt(z^2 + c^2) = |c| + z^2 / (sqrt(z^2 + c^2) + |c|)
        ... def hypot(operation):
        ...     z, c = operation.input, operation.argument("other").abs()
        ...     return gain(operation, z / (operation.run() + c), c)
        >>> lin = linearize(Net().eval(), torch.tensor([[4.0]]))
        >>> lin.weight(), lin.bias()
        (tensor([[[0.5000]]]), tensor([[3.]]))
        """
        value = self.recorded.arguments.get(name)
        if isinstance(value, Leaf):
            return value.value if value.role is Role.CONSTANT else value
        return value

    def named(self, argument: str, label: str) -> str:
        """Name of the parameter or buffer that an argument is.

        Parameters
        ----------
        argument : str
            The argument's name in ATen's schema.
        label : str
            Name of what is neither parameter nor buffer.

        Returns
        -------
        str
            The name in the network, else `label`.

        Examples
        --------
        >>> import torch
        >>> from ptsne.linearize import Held, gain, linearization_rule, linearize
        >>> class Floor(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.floor = torch.nn.Parameter(torch.tensor([1.0]))
        ...
        ...     def forward(self, x):
        ...         return torch.logaddexp(x, self.floor)
        >>> @linearization_rule("logaddexp")
        ... def soft_maximum(operation):
        ...     z = operation.input
        ...     at_zero = operation.run([torch.zeros_like(z)])
        ...     held = gain(operation, (operation.run() - at_zero) / z)
        ...     return Held(held.pull, {operation.named("other", operation.label): at_zero})
        >>> linearize(Floor().eval(), torch.tensor([[2.0]])).bias_terms()
        {'floor': tensor([[1.3133]])}
        """
        value = self.argument(argument)
        name = self.names(value) if isinstance(value, Tensor) else None
        return name or label

    def constant(self, argument: str) -> Any:
        """Argument as an additive constant.

        Parameters
        ----------
        argument : str
            Its name in ATen's schema.

        Returns
        -------
        number, Tensor or None
            None where it depends on x, or was not given.

        Examples
        --------
        >>> import torch
        >>> from ptsne.linearize import Held, linearization_rule, linearize
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.lerp(x, torch.tensor([8.0, 4.0]), 0.25)
        >>> @linearization_rule("lerp")  # z + weight (end - z), where z alone depends on x
        ... def lerp(operation):
        ...     end, weight = operation.constant("end"), operation.argument("weight")
        ...     return Held(constants={operation.label: weight * end})
        >>> linearize(Net().eval(), torch.tensor([[1.0, 2.0]])).bias_terms()
        {'lerp': tensor([[2., 1.]])}
        """
        value = self.argument(argument)
        return None if isinstance(value, Leaf) else value

    def run(self, inputs: Sequence[Tensor] | None = None) -> Any:
        """Run the operation again at other values of the inputs that depend on x.

        Parameters
        ----------
        inputs : sequence of Tensor, optional
            One for each of `edges`; the recorded ones by default.

        Returns
        -------
        Tensor or tuple of Tensor
            What the operation gives.

        Examples
        --------
        >>> import torch
        >>> from ptsne.linearize import gain, linearization_rule, linearize
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.special.erfcx(x)
        >>> @linearization_rule("specialerfcx")
        ... def erfcx(operation):
        ...     z = operation.input
        ...     at_zero = operation.run([torch.zeros_like(z)])
        ...     return gain(operation, (operation.run() - at_zero) / z, at_zero)
        >>> lin = linearize(Net().eval(), torch.tensor([[0.5, 2.0]]))
        >>> lin.bias(), bool(lin.residual().max() < 1e-6)
        (tensor([[1., 1.]]), True)
        """
        values = iter(self.inputs if inputs is None else inputs)

        def value(leaf: Leaf) -> Tensor:
            if leaf.role is Role.ACTIVE:
                return next(values).clone()  # in-place operations write into it
            if leaf.role is Role.SEVERED or leaf.value is None:
                raise self.unsupported(f"one of its inputs was {Role.SEVERED.value}")
            return leaf.value

        return self.recorded.run(value)

    def at_zero(self) -> Tensor:
        """Value of an affine operation where all that depends on x is zero: its constant.

        Returns
        -------
        Tensor
            Of the shape of its output.

        Examples
        --------
        >>> import torch
        >>> from ptsne.linearize import Held, linearization_rule, linearize
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.lerp(x, torch.tensor([8.0, 4.0]), 0.25)
        >>> @linearization_rule("lerp")  # affine in x: W is its derivative, b what is left at zero
        ... def lerp(operation):
        ...     return Held(constants={operation.label: operation.at_zero()})
        >>> linearize(Net().eval(), torch.tensor([[1.0, 2.0]])).bias_terms()
        {'lerp': tensor([[2., 1.]])}
        """
        first = next(self.recorded.leaves())

        def value(leaf: Leaf) -> Tensor:
            if leaf.role is not Role.CONSTANT or leaf.value is None:
                return leaf.zero()
            return leaf.value.clone() if leaf is first else leaf.value

        result: Tensor = self.recorded.run(value)
        return result

    def unsupported(self, reason: str = "", advice: str = "") -> UnsupportedOperation:
        """Make the error that refuses this operation.

        Parameters
        ----------
        reason : str
            What stands against an exact linear form.
        advice : str
            What to do instead.

        Returns
        -------
        UnsupportedOperation
            To be raised; it names the operation and its module.

        Examples
        --------
        >>> import torch
        >>> from ptsne.linearize import Operation, linearization_rule, linearize
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.log(x)
        >>> @linearization_rule("log")
        ... def log(operation: Operation):
        ...     raise operation.unsupported("it has no value at 0", "Take log1p, which has")
        >>> linearize(Net().eval(), torch.ones(1, 1))
        Traceback (most recent call last):
            ...
        ptsne.linearize.errors.UnsupportedOperation: no exact linear form for LogBackward0
        in the model: it has no value at 0. Take log1p, which has
        """
        said = f": {reason}" if reason else ""
        tail = f". {advice}" if advice else ""
        return UnsupportedOperation(
            f"no exact linear form for {self.node.name()} in {where(self.path)}{said}{tail}"
        )
