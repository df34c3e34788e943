"""A fitted map as an ONNX file: places, and with them W and b, in any runtime.

Preprocessing, encoder and projection are one graph. Its W and b are written out as tensor algebra
of the gates of each layer (which landmarks hold a row, which charts are clipped, which ReLUs are
open), so that ``W x + b`` and y are two computations, and their agreement is a check.
"""

import copy
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ptsne.linearize import UnsupportedOperation
from ptsne.networks import AtlasProjection, MapNetwork, Scale, SkipNetwork, Standardize

OPSET = 18
"""Version of ONNX's operator set that files are written in; runtimes since early 2023 read it."""
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
CANDIDATE_MARGIN = 1.25
"""Landmarks that score less than this below the best are candidates; 1 is what sparsemax needs,
the rest is room for the rounding of float32 scores."""

PROMISE: Callable[[bool], None] = torch._check
"""What `torch.export` may rely on about a number that depends on the data."""


class Affine(NamedTuple):
    """One affine map per row, ``output = weight @ input + bias``.

    Attributes
    ----------
    weight : Tensor of shape (B, K, n_in)
        W.
    bias : Tensor of shape (B, K)
        b.
    """

    weight: Tensor
    bias: Tensor


# ------------------------------------------------------------------ networks that can be exported


class ExportableAtlas(AtlasProjection):
    """The same function as `AtlasProjection` in shapes that `torch.export` can follow.

    The support is found by sorting the top scores instead of by `nonzero` and `bincount`. The
    candidates are sorted by what they score more than the best one, from differences of landmarks,
    which keeps the digits in float32 too.
    """

    def support(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks that hold each row of `z` (B, L): index (B, k), best first, and active."""
        scores = self.scores(z)
        near = scores > scores.amax(1, keepdim=True) - CANDIDATE_MARGIN
        k = cast(int, near.sum(1).max().clamp(min=1).item())  # 0 where all rows are NaN
        PROMISE(k >= 1)
        PROMISE(k <= scores.shape[1])
        index = scores.topk(k, dim=1).indices
        K = self.landmarks[index]
        slope, level = _leads(K, K[:, :1], self.temperature)
        lead = (slope * z.unsqueeze(1)).sum(-1) + level  # (B, k)
        ordered = lead.topk(k, dim=1).values
        total = ordered.cumsum(1)
        rank = torch.arange(1, k + 1, dtype=z.dtype, device=z.device)
        size = (1 + rank * ordered > total).sum(1, keepdim=True)
        return index, lead > (total.gather(1, size - 1) - 1) / size

    def affine(self, z: Tensor, index: Tensor, active: Tensor) -> Affine:
        """W (B, K, L) and b (B, K) of the piece that each row of `z` (B, L) lies on."""
        held = active.to(z.dtype).unsqueeze(-1)  # (B, k, 1)
        K = self.landmarks[index]
        slope, level = _weight_maps(K, held, self.temperature)  # p = slope . z + level
        chart = self.charts[index] + self.shared_chart  # (B, k, n_components, L)
        offset = (chart * (z.unsqueeze(1) - K).unsqueeze(2)).sum(-1)
        reach = (self.clip * self.weights(z, index, active)).unsqueeze(-1)
        side = (offset > reach).to(z.dtype) - (offset < -reach).to(z.dtype)  # (B, k, n_components)
        free = (1 - side.abs()) * held
        amount = self.places[index] + self.clip * side  # what each unit of p adds
        weight = amount.transpose(1, 2) @ slope + (free.unsqueeze(-1) * chart).sum(1)
        start = (chart * K.unsqueeze(2)).sum(-1)
        bias = (amount * level.unsqueeze(-1)).sum(1) - (free * start).sum(1)
        return Affine(weight + self.tilt, bias)


def _leads(K: Tensor, best: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Score over that of another landmark as ``slope . z + level``: (B, k, L) and (B, k)."""
    slope = 2 * (K - best) / temperature
    return slope, -(slope * (K + best) / 2).sum(-1)


def _weight_maps(K: Tensor, held: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Sparsemax weights as ``slope . z + level``, (B, k, L) and (B, k), from their support."""
    first = held.argmax(1, keepdim=True).expand(-1, -1, K.shape[2])
    slope, level = _leads(K, K.gather(1, first), temperature)
    count = held.sum(1, keepdim=True)  # (B, 1, 1)
    slope = (slope - (slope * held).sum(1, keepdim=True) / count) * held
    level = level.unsqueeze(-1)
    level = (level - (level * held).sum(1, keepdim=True) / count + 1 / count) * held
    return slope, level.squeeze(-1)


class SplitStandardize(Standardize):
    """``(x - mean - remainder) / scale``: float32 rows far from zero keep their digits.

    Parameters
    ----------
    exact : Standardize
        In float64.
    """

    remainder: Tensor

    def __init__(self, exact: Standardize) -> None:
        rounded = exact.mean.float().double()
        super().__init__(rounded, exact.scale)
        self.register_buffer("remainder", exact.mean - rounded)

    def forward(self, x: Tensor) -> Tensor:
        """Centre and scale `x` (B, D)."""
        return (x - self.mean - self.remainder) / self.scale


def exportable(network: MapNetwork, *, dtype: str = "float64") -> MapNetwork:
    """Copy a map in a form that `torch.export` can follow, with any number of rows.

    Parameters
    ----------
    network : MapNetwork
        Of a fitted map; an atlas finds its landmarks by data-dependent shapes, which cannot be
        exported.
    dtype : {"float32", "float64"}
        Precision of the copy.

    Returns
    -------
    MapNetwork
        The same function, in eval mode on the CPU, without the decoder.
    """
    copied = copy.deepcopy(MapNetwork(network.encoder, network.projection)).cpu().double()
    form = cast(MapNetwork, _exportable_form(copied, is_rounded=dtype == "float32"))
    return form.to(PRECISIONS[dtype]).requires_grad_(False).eval()


def _exportable_form(module: nn.Module, *, is_rounded: bool) -> nn.Module:
    """The module with our own layers replaced where export needs another form."""
    if _has_hooks(module):
        return module
    if type(module) is AtlasProjection:
        atlas = ExportableAtlas(module.landmarks, module.places.shape[1])
        atlas.load_state_dict(module.state_dict())
        return atlas
    if type(module) is Standardize and is_rounded:
        return SplitStandardize(module)
    for name, child in module.named_children():
        setattr(module, name, _exportable_form(child, is_rounded=is_rounded))
    return module


def _has_hooks(module: nn.Module) -> bool:
    """Whether more happens in a call of the module than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


# ----------------------------------------------------------------- W and b from the gates of layers


class ExplainedMap(nn.Module):
    """``x -> (y, W, b)`` with W and b from the gates of the layers.

    Parameters
    ----------
    network : MapNetwork
        From `exportable`.
    """

    def __init__(self, network: MapNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places (B, K), W (B, K, D) and b (B, K) of rows `x` (B, D)."""
        z = self.network.encoder(x)
        y, after = _explained_projection(self.network.projection, z)
        return y, *pull_back(self.network.encoder, x, after)


def _explained_projection(projection: nn.Module, z: Tensor) -> tuple[Tensor, Affine]:
    """Places (B, K) of codes (B, L), and their affine maps."""
    if isinstance(projection, ExportableAtlas):
        slots = projection.support(z)  # once: its width is a symbol, and costly to trace
        return projection.blend(z, *slots), projection.affine(z, *slots)
    y: Tensor = projection(z)
    n_rows, n_out = y.shape  # not len(y), which would fix the number of rows
    eye = torch.eye(n_out, dtype=z.dtype, device=z.device).expand(n_rows, -1, -1)
    return y, pull_back(projection, z, Affine(eye, z.new_zeros(n_rows, n_out)))


def pull_back(layer: nn.Module, x: Tensor, after: Affine) -> Affine:
    """Affine map of what follows a layer, as one of the layer's input.

    Parameters
    ----------
    layer : nn.Module
        One of ours, or linear layers and ReLUs in sequence.
    x : Tensor of shape (B, n_in)
        Input of the layer; opens and closes its gates.
    after : Affine
        From the output of the layer.

    Returns
    -------
    Affine
        From the input of the layer.

    Raises
    ------
    UnsupportedOperation
        If there is no formula for a layer of this class, or hooks change what it does.
    """
    rule = RULES.get(type(layer))
    if rule is None or _has_hooks(layer):
        raise UnsupportedOperation(
            f"W and b of a {type(layer).__name__} cannot be written into a file: there are "
            f"formulas for {', '.join(sorted(kind.__name__ for kind in RULES))}, without hooks; "
            "export with_explanation=False and explain with ptsne, or use these layers"
        )
    return rule(layer, x, after)


def _then(weight: Tensor, bias: Tensor | None, after: Affine) -> Affine:
    """A fixed affine layer, then `after`."""
    constant = after.bias if bias is None else after.bias + after.weight @ bias
    return Affine(after.weight @ weight, constant)


def _identity(_layer: nn.Module, _x: Tensor, after: Affine) -> Affine:
    return after


def _linear(layer: nn.Linear, _x: Tensor, after: Affine) -> Affine:
    return _then(layer.weight, layer.bias, after)


def _relu(_layer: nn.ReLU, x: Tensor, after: Affine) -> Affine:
    return Affine(after.weight * (x > 0).to(x.dtype).unsqueeze(1), after.bias)


def _scale(layer: Scale, _x: Tensor, after: Affine) -> Affine:
    return Affine(after.weight * layer.scale, after.bias)


def _standardize(layer: Standardize, _x: Tensor, after: Affine) -> Affine:
    weight = after.weight / layer.scale
    return Affine(weight, after.bias - weight @ layer.mean)


def _split_standardize(layer: SplitStandardize, x: Tensor, after: Affine) -> Affine:
    weight, bias = _standardize(layer, x, after)
    return Affine(weight, bias - weight @ layer.remainder)


def _skip(layer: SkipNetwork, x: Tensor, after: Affine) -> Affine:
    linear = pull_back(layer.linear, x, after)
    if layer.branch is None:
        return linear
    no_bias = Affine(after.weight, torch.zeros_like(after.bias))
    branch = pull_back(layer.branch, x, no_bias)
    return Affine(linear.weight + branch.weight, linear.bias + branch.bias)


def _sequence(layers: nn.Sequential, x: Tensor, after: Affine) -> Affine:
    inputs = [x]
    for layer in list(layers)[:-1]:
        inputs.append(layer(inputs[-1]))
    for layer, given in zip(reversed(layers), reversed(inputs), strict=True):
        after = pull_back(layer, given, after)
    return after


RULES: dict[type[nn.Module], Callable[[Any, Tensor, Affine], Affine]] = {
    SplitStandardize: _split_standardize,
    Standardize: _standardize,
    SkipNetwork: _skip,
    Scale: _scale,
    nn.Identity: _identity,
    nn.Linear: _linear,
    nn.ReLU: _relu,
    nn.Sequential: _sequence,
}


# ----------------------------------------------------------------------------------- the file


def write_onnx(
    network: MapNetwork,
    path: str | os.PathLike[str],
    *,
    feature_names: Sequence[str],
    with_explanation: bool = False,
    dtype: str = "float32",
) -> None:
    """Write a map as one ONNX graph; the file appears under its name only when it is complete.

    The input is `x` (N, D), for any N of at least 1; the outputs are `y` (N, K) and, with an
    explanation, `weight` (N, K, D) and `bias` (N, K) with ``y = weight @ x + bias``. The metadata
    of the file name the features, D, K, the precision and the library.

    Parameters
    ----------
    network : MapNetwork
        Of a fitted map.
    path : path-like
        File to write.
    feature_names : sequence of str
        Names of the D columns.
    with_explanation : bool
        Whether to write W and b too.
    dtype : {"float32", "float64"}
        Precision of input, outputs and computation.

    Raises
    ------
    FileNotFoundError
        If the folder of the file is not there.
    ValueError
        If `dtype` is another.

    Notes
    -----
    Raises ImportError where onnx or onnxscript are not installed, and UnsupportedOperation, which
    names the operation, where a network of the user's has one that ONNX, or the formulas of W and
    b, lack.

    float64 gives the places of `transform` to 1e-14 of the map's size. float32 gives them to a few
    1e-6 (measured on digits), and to 4e-5 where the blends between 1,000 landmarks are a hundred
    times as sharp as training makes them. W and b of a row that stands within rounding of the
    border of its linear region may be those of the other side.
    """
    if dtype not in PRECISIONS:
        raise ValueError(f'dtype must be "float32" or "float64"; got {dtype!r}')
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"there is no folder {Path(path).parent}; make it first")
    _require_exporter()
    form = exportable(network, dtype=dtype)
    model = ExplainedMap(form).eval() if with_explanation else form
    example = torch.zeros(2, len(feature_names), dtype=PRECISIONS[dtype])
    outputs = ["y", "weight", "bias"] if with_explanation else ["y"]
    proto = _graph(model, example, outputs)
    with torch.no_grad():
        n_components = form(example).shape[1]
    metadata = {
        "library": f"ptsne {version('ptsne')}",
        "feature_names": json.dumps([str(name) for name in feature_names]),
        "n_features": str(len(feature_names)),
        "n_components": str(n_components),
        "dtype": dtype,
    }
    _write(Path(path), _labelled(proto, metadata).SerializeToString())


def _require_exporter() -> None:
    try:
        import onnx  # noqa: F401, PLC0415 - optional
        import onnxscript  # noqa: F401, PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            f"writing ONNX files needs {error.name}, which is not installed: "
            'pip install "ptsne[onnx]"'
        ) from error


def _graph(model: nn.Module, example: Tensor, outputs: list[str]) -> Any:
    """The model as an ONNX ModelProto with N rows."""
    rows = {0: torch.export.Dim("N")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's own internals
            # traced here: torch.onnx would try again with the number of rows fixed
            traced = torch.export.export(model, (example,), dynamic_shapes=(rows,))
            program = torch.onnx.export(
                traced,
                input_names=["x"],
                output_names=outputs,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except UnsupportedOperation:
        raise
    except RuntimeError as error:
        raise UnsupportedOperation(
            f"this map cannot be written as ONNX: {_root_cause(error)}; replace the operation in "
            "the encoder or projection"
        ) from error
    return cast(Any, program).model_proto


def _root_cause(error: BaseException) -> str:
    """The operation that has no translation, or the first line of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    operation = re.search(r"op='([\w.]+)'", str(error))
    if operation:
        return f"ONNX has no form of the operation {operation[1]}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _labelled(proto: Any, metadata: dict[str, str]) -> Any:
    """The model with our metadata, and without traces of the files that it was made from."""
    for node in proto.graph.node:
        del node.metadata_props[:]
    for part in (proto.graph, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]
    del proto.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name, proto.producer_version = "ptsne", version("ptsne")
    return proto


def _write(path: Path, content: bytes) -> None:
    """Write beside the target, then rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
