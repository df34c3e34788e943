"""Held maps from the input to a layer, and from the layer to the output."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .graph import HeldGraph, LayoutError
from .modules import Activation
from .outputs import Outputs, empty_weight, one_hot, output_columns, target_columns
from .running import exact_arithmetic
from .sweep import Sweep

if TYPE_CHECKING:
    from .linearization import Linearization


class LayerLinearization:
    """Held maps from the input to a layer, and from the layer to the output.

    Attributes
    ----------
    activation : Tensor of shape (N, ...)
        The layer's output h.

    Examples
    --------
    >>> import torch
    >>> from ptsne import linearize
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ... ).eval()
    >>> layer = linearize(net, torch.ones(2, 4), layers=["1"]).layer("1")
    >>> layer.weight().shape, layer.bias().shape  # 2 rows, 8 neurons, 4 inputs
    (torch.Size([2, 8, 4]), torch.Size([2, 8]))
    >>> layer.contribution("predicted").shape  # what each neuron adds to the largest output
    torch.Size([2, 8])
    >>> layer.effect("predicted").shape  # what one unit more of each neuron would add
    torch.Size([2, 8])
    """

    def __init__(self, whole: "Linearization", name: str, call: int) -> None:
        self._whole = whole
        self._name = name
        self._call = call
        parts = [self._at(graph).value for _, graph in whole._graphs()]
        self.activation = torch.cat(parts)
        if len(self.activation) != len(whole.output):
            raise KeyError(
                f"layer {name!r} does not give one row per instance: its output has shape "
                f"{tuple(self.activation.shape)}"
            )

    def _at(self, graph: HeldGraph) -> Activation:
        calls = graph.layers[self._name]
        if self._call >= len(calls):
            raise KeyError(f"layer {self._name!r} ran {len(calls)} times; got call={self._call}")
        return calls[self._call]

    def weight(self, neurons: int | Sequence[int] | Tensor | None = None) -> Tensor:
        """Map from the input to the layer: ``h = W x + b``.

        Parameters
        ----------
        neurons : int, sequence of int, Tensor or None
            Which neurons, counted in the flattened activation of a row; None for all.

        Returns
        -------
        Tensor of shape (N, n, *input shape)
            One row per neuron.

        Notes
        -----
        `MemoryError` if it is larger than the memory budget.
        `IndexError` if there is no such neuron.
        `CompletenessError` if ``h - W x`` is not the sum of the bias terms.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> layer = linearize(net, x, layers=["1"]).layer("1")
        >>> layer.weight().shape, layer.weight([0, 5]).shape  # all 8 neurons, two of them
        (torch.Size([2, 8, 4]), torch.Size([2, 2, 4]))
        """
        columns = output_columns(self.activation, neurons)
        whole = self._whole
        weight = empty_weight(
            whole._x,
            columns.shape[1],
            whole._budget,
            what=f"W of layer {self._name!r}",
            advice="or choose neurons, such as those of largest contribution()",
        )
        sweep = self._swept(columns, weight)
        assert sweep.weight is not None
        return sweep.weight

    def bias(self, neurons: int | Sequence[int] | Tensor | None = None) -> Tensor:
        """Constants of the same map.

        Parameters
        ----------
        neurons : int, sequence of int, Tensor or None
            As in `weight`.

        Returns
        -------
        Tensor of shape (N, n)
            b of the layer, from its terms.

        Notes
        -----
        `IndexError` if there is no such neuron.
        `CompletenessError` if ``h - W x`` is not the sum of the bias terms.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> layer = linearize(net, x, layers=["1"]).layer("1")
        >>> h = (layer.weight() @ x[:, :, None])[:, :, 0] + layer.bias()
        >>> torch.allclose(h, layer.activation, atol=1e-5)
        True
        """
        return self._swept(output_columns(self.activation, neurons), None).bias()

    def effect(self, target: Outputs) -> Tensor:
        """Map from the layer to the target output, gates held.

        Parameters
        ----------
        target : int, Tensor of shape (N,) or "predicted"
            Output of all rows, or of each.

        Returns
        -------
        Tensor of the shape of the activation
            ``d F_target / d h`` of the held map.

        Notes
        -----
        `IndexError` if there is no such output.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> layer = linearize(net, x, layers=["1"]).layer("1")
        >>> torch.allclose(layer.effect(0), net[2].weight[0].expand(2, 8))
        True
        """
        whole = self._whole
        columns = target_columns(whole.output, target)[:, 0]
        parts = []
        for rows, graph in whole._graphs():
            layer = self._at(graph)
            with exact_arithmetic(graph.x.device):
                gradient = graph.gradient(one_hot(graph.output, columns[rows]), layer.edge)
            parts.append(torch.zeros_like(layer.value) if gradient is None else gradient)
        return torch.cat(parts)

    def contribution(self, target: Outputs) -> Tensor:
        """``effect * activation``: what each neuron adds to the target output.

        Parameters
        ----------
        target : int, Tensor of shape (N,) or "predicted"
            Output of all rows, or of each.

        Returns
        -------
        Tensor of the shape of the activation
            With the biases downstream, sums to the output where all paths pass the layer.

        Notes
        -----
        `IndexError` if there is no such output.

        Examples
        --------
        >>> import torch
        >>> from ptsne import linearize
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... ).eval()
        >>> x = torch.ones(2, 4)
        >>> layer = linearize(net, x, layers=["1"]).layer("1")
        >>> parts = layer.contribution(0)
        >>> torch.allclose(parts.sum(1) + net[2].bias[0], net(x)[:, 0], atol=1e-5)
        True
        """
        return self.effect(target) * self.activation

    def _swept(self, columns: Tensor, weight: Tensor | None) -> Sweep:
        try:
            return self._sweep(Sweep(columns, weight, self.activation))
        except LayoutError:
            self._whole._split_instances()
            return self._sweep(Sweep(columns, weight, self.activation))

    def _sweep(self, sweep: Sweep) -> Sweep:
        with exact_arithmetic(self.activation.device):
            for rows, graph, j in self._whole._steps(sweep.columns.shape[1]):
                layer = self._at(graph)
                chosen = sweep.columns[rows, j]
                value = layer.value.reshape(len(chosen), -1).gather(1, chosen[:, None])[:, 0]
                sweep.add(rows, j, graph.row(layer.edge, one_hot(layer.value, chosen), value))
        return sweep
