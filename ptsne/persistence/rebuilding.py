"""Networks from the names and shapes of their tensors."""

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ptsne.networks import (
    AtlasProjection,
    Decoder,
    MapNetwork,
    Scale,
    SkipNetwork,
    Standardize,
    relu_network,
)


def build_network(
    state: dict[str, Tensor],
    *,
    encoder: nn.Module | None = None,
    projection: nn.Module | None = None,
) -> MapNetwork:
    """Rebuild the networks of a map from the names and shapes of their tensors.

    Parameters
    ----------
    state : dict of Tensor
        ``network.state_dict()``.
    encoder, projection : nn.Module or None
        The user's own parts, which are copied.

    Returns
    -------
    MapNetwork
        In eval mode, in the precision of the state, without gradients.

    Raises
    ------
    ValueError
        If names, shapes or types do not fit.
    """
    try:
        precision = _precision(state)
        meta = {name: value.to("meta") for name, value in state.items()}
        with torch.device("meta"):  # a shape in a file must not decide how much memory is taken
            own_encoder = _encoder(below(meta, "encoder.")) if encoder is None else None
            own_projection = _projection(below(meta, "projection.")) if projection is None else None
            decoder = _decoder(below(meta, "decoder."))
        network = MapNetwork(
            own_encoder or copy.deepcopy(cast(nn.Module, encoder)),
            own_projection or nn.Sequential(copy.deepcopy(cast(nn.Module, projection)), Scale(1.0)),
            decoder,
        )
        _assign(network.to(precision), state)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"its networks cannot be rebuilt: {str(error)[:500]}") from error
    return network.eval().requires_grad_(False)


def build_inverse(state: dict[str, Tensor]) -> nn.Sequential:
    """Rebuild the decoder of `inverse_transform`.

    Parameters
    ----------
    state : dict of Tensor
        Its ``state_dict()``.

    Returns
    -------
    nn.Sequential
        y (B, K) -> x (B, D), in eval mode.

    Raises
    ------
    ValueError
        If names, shapes or types do not fit.
    """
    try:
        precision = _precision(state)
        meta = {name: value.to("meta") for name, value in state.items()}
        with torch.device("meta"):
            network = nn.Sequential(_standardize(meta, "0."), _decoder(below(meta, "1.")))
        _assign(network.to(precision), state)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"its inverse cannot be rebuilt: {str(error)[:500]}") from error
    return network.eval()


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose name starts with `prefix`, without it."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _precision(state: Mapping[str, Tensor]) -> torch.dtype:
    """The one floating type of a state without NaN."""
    floating = {name: value for name, value in state.items() if value.is_floating_point()}
    types = {value.dtype for value in floating.values()}
    if len(types) != 1 or types & {torch.float16}:
        raise ValueError(f"weights must all be float64 or float32; got {sorted(map(str, types))}")
    bad = [name for name, value in floating.items() if value.isnan().any()]
    if bad:
        raise ValueError(f"{bad[0]} holds NaN")
    return types.pop()


def _assign(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network the tensors of a file, whose names, shapes and types must be its own."""
    wanted = {name: value.dtype for name, value in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    wrong = [name for name, dtype in wanted.items() if state[name].dtype != dtype]
    if wrong:
        raise ValueError(f"{wrong[0]} holds {state[wrong[0]].dtype}, not {wanted[wrong[0]]}")


def _widths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Input width, then output widths of the linear layers of a ReLU network."""
    layers = {int(k.split(".")[0]): v for k, v in state.items() if k.endswith(".weight")}
    weights = [layers[i] for i in sorted(layers)]  # a file has "10" before "2"
    return (weights[0].shape[1], *(len(w) for w in weights)) if weights else ()


def _standardize(state: Mapping[str, Tensor], prefix: str) -> Standardize:
    return Standardize(state[f"{prefix}mean"].double(), state[f"{prefix}scale"].double())


def _skip(state: Mapping[str, Tensor], prefix: str) -> SkipNetwork:
    hidden = _widths(below(state, f"{prefix}branch."))[1:-1]
    return SkipNetwork(state[f"{prefix}linear.weight"], hidden)


def _encoder(state: Mapping[str, Tensor]) -> nn.Module:
    if "mean" in state:
        return _standardize(state, "")
    return nn.Sequential(_standardize(state, "0."), _skip(state, "1."))


def _decoder(state: Mapping[str, Tensor]) -> Decoder:
    return Decoder(_skip(state, "network."), _standardize(state, "standardize."))


def _projection(state: Mapping[str, Tensor]) -> nn.Module:
    if "landmarks" in state:
        return AtlasProjection(state["landmarks"], state["places"].shape[1])
    return nn.Sequential(relu_network(_widths(below(state, "0."))), Scale(1.0))
