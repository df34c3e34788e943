"""ONNX files agree with the library, W and b too; what cannot be written is refused by name."""

import json
import logging
import sys
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from torch import nn

from ptsne import ParametricTSNE, UnsupportedOperation, linearize
from ptsne.cli import main
from ptsne.export import OPSET, ExplainedMap, _write, exportable, write_onnx
from ptsne.networks import (
    AtlasProjection,
    MapNetwork,
    Scale,
    SkipNetwork,
    Standardize,
    relu_network,
)

N_ROWS = 10_000
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
"""Relative to the largest entry of the quantity on these rows."""
BORDER = {"float64": 1e-9, "float32": 1e-4}
"""Rows nearer to the border of their linear region than this share of their length may round to
the other side of it, where W is another."""


class Exported(NamedTuple):
    """A fitted map, random rows, what the library and what the file say of them."""

    map_: ParametricTSNE
    dtype: str
    path: object
    session: onnxruntime.InferenceSession
    X: np.ndarray
    why: object
    outputs: dict


def digits_atlas():
    return ParametricTSNE(max_iter=80, random_state=0), load_digits().data[:500]


def far_digits_atlas():
    """Rows so far from zero that float32 holds them to 3e-5; digits are 0 to 16."""
    return ParametricTSNE(max_iter=80, random_state=0), load_digits().data[:500] + 1000


def iris_relu():
    network = {"encoder": (16,), "projection": (32, 16), "n_components": 3}
    return ParametricTSNE(max_iter=60, random_state=0, **network), load_iris(as_frame=True).data


# the slow ones cross the same formulas and precisions the other way
CASES = [
    pytest.param((far_digits_atlas, "float32"), id="far-atlas-float32"),
    pytest.param((iris_relu, "float64"), id="relu-float64"),
    pytest.param((digits_atlas, "float64"), id="atlas-float64", marks=pytest.mark.slow),
    pytest.param((iris_relu, "float32"), id="relu-float32", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    make, dtype = request.param
    map_, data = make()
    map_.fit(data)
    path = tmp_path_factory.mktemp("onnx") / "map.onnx"
    map_.to_onnx(path, with_explanation=True, dtype=dtype)
    X = random_rows(np.asarray(data), dtype)
    session = onnxruntime.InferenceSession(path)
    outputs = dict(zip(["y", "weight", "bias"], session.run(None, {"x": X}), strict=True))
    wide = X.astype(np.float64)  # so that the library's own rounding is not in the comparison
    why = map_.explain(pd.DataFrame(wide, columns=data.columns) if has_names(data) else wide)
    return Exported(map_, dtype, path, session, X, why, outputs)


def has_names(data):
    return hasattr(data, "columns")


def random_rows(data, dtype):
    """Training rows, two of which are mixed and spread by noise."""
    rng = np.random.default_rng(0)
    first, second = data[rng.integers(len(data), size=(2, N_ROWS))]
    share = rng.random((N_ROWS, 1))
    noise = rng.normal(size=first.shape) * data.std()
    return (share * first + (1 - share) * second + 0.3 * noise).astype(dtype)


def relative_error(found, wanted):
    """Largest error of each row, as a share of the largest entry of all rows."""
    error = np.abs(found - wanted).reshape(len(wanted), -1).max(1)
    return error / np.abs(wanted).max()


def test_places_agree(exported):
    y = exported.outputs["y"]
    assert y.dtype == exported.dtype
    # on a steep piece, what rounding each product W x costs in that precision
    steep = np.abs(exported.why.weight) @ np.abs(exported.X.astype(np.float64))[:, :, None]
    rounding = np.finfo(exported.dtype).eps * steep.max((1, 2)) / np.abs(exported.why.Y).max()
    error = relative_error(y, exported.why.Y)
    assert (error < TOLERANCE[exported.dtype] + rounding).all()
    assert np.median(error) < TOLERANCE[exported.dtype]


def test_local_maps_agree_off_the_borders(exported):
    length = np.linalg.norm(exported.X - exported.X.mean(0), axis=1)
    inside = exported.why.radius() > BORDER[exported.dtype] * length
    # none stand that near in float64; in float32 0.3 % (atlas) and 0.8 % (ReLU), and none differ
    assert inside.mean() > 0.99
    for name, wanted in [("weight", exported.why.weight), ("bias", exported.why.intercept)]:
        error = relative_error(exported.outputs[name], wanted)[inside]
        assert error.max() < TOLERANCE[exported.dtype], name


def test_the_file_is_exact_about_itself(exported):
    y, weight, bias = (exported.outputs[n].astype(np.float64) for n in ("y", "weight", "bias"))
    terms = weight * exported.X[:, None]
    size = np.abs(terms).sum(2) + np.abs(bias)
    residual = np.abs(terms.sum(2) + bias - y) / size
    assert residual.max() < {"float64": 1e-13, "float32": 2e-6}[exported.dtype]


@pytest.mark.parametrize("n_rows", [1, 2, 7])
def test_any_number_of_rows(exported, n_rows):
    outputs = exported.session.run(None, {"x": exported.X[:n_rows]})
    for found, wanted in zip(outputs, exported.outputs.values(), strict=True):
        assert found.shape == (n_rows, *wanted.shape[1:])
        assert relative_error(found, wanted[:n_rows]).max() < TOLERANCE[exported.dtype]


def test_a_missing_number_gives_no_place_and_leaves_the_other_rows(exported):
    X = exported.X[:3].copy()
    X[1, 0] = np.nan
    y, _, _ = exported.session.run(None, {"x": X})
    assert np.isnan(y[1]).all()
    assert relative_error(y[::2], exported.outputs["y"][:3:2]).max() < TOLERANCE[exported.dtype]
    assert np.isnan(exported.session.run(["y"], {"x": X[1:2]})[0]).all()


def test_the_file_says_what_it_is(exported):
    proto = onnx.load(exported.path)
    onnx.checker.check_model(proto, full_check=True)
    assert {opset.domain: opset.version for opset in proto.opset_import} == {"": OPSET}
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["library"].startswith("ptsne ")
    names = json.loads(metadata["feature_names"])
    assert names == exported.why.feature_names
    assert metadata["n_features"] == str(len(names))
    assert metadata["n_components"] == str(exported.map_.n_components)
    assert metadata["dtype"] == exported.dtype
    rows = [v.type.tensor_type.shape.dim[0].dim_param for v in (*proto.graph.input,)]
    assert rows == ["N"]


def test_the_file_tells_no_names_of_files(exported):
    content = exported.path.read_bytes()
    assert b".py" not in content
    assert b"Traceback" not in content


# ------------------------------------------------------------- forms that torch.export can follow


def random_network(projection, widths=()):
    """An untrained map of 5 columns whose gates are all in use."""
    skip = SkipNetwork(torch.randn(4, 5), widths)
    standardize = Standardize(torch.randn(5), torch.tensor(0.7))
    network = MapNetwork(nn.Sequential(standardize, skip), projection).double()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64) / 2
    return network.requires_grad_(False).eval()


def atlas(n_landmarks=30, *, n_components=2, temperature=3.0, clip=0.7):
    settings = {"temperature": temperature, "clip": clip}
    return AtlasProjection(torch.zeros(n_landmarks, 4), n_components, **settings)


PROJECTIONS = {
    "atlas": atlas,
    "one landmark": lambda: atlas(1),
    "wide blends": lambda: atlas(temperature=200.0),
    "three dimensions": lambda: atlas(n_components=3),
    "relu": lambda: nn.Sequential(relu_network((4, 9, 7, 1)), Scale(3.0)),
    "identity": lambda: nn.Sequential(nn.Identity(), relu_network((4, 6, 2))),
}


@pytest.fixture(autouse=True)
def _own_randomness():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("widths", [(), (6, 8)])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_formulas_of_the_gates_are_those_of_the_linearizer(projection, widths):
    network = random_network(PROJECTIONS[projection](), widths)
    x = 3 * torch.randn(200, 5, dtype=torch.float64)
    y, weight, bias = ExplainedMap(exportable(network))(x)
    linear = linearize(network, x)
    assert_allclose(y, network(x), rtol=1e-12, atol=1e-12)
    assert_allclose(weight, linear.weight(), rtol=1e-11, atol=1e-11)
    assert_allclose(bias, linear.bias(), rtol=1e-11, atol=1e-11)


def test_rows_far_away_and_halfway_have_the_same_places():
    network = random_network(atlas())
    landmarks = network.projection.landmarks
    halfway = (landmarks[:10] + landmarks[10:20]) / 2
    form = exportable(network).projection
    for z in (halfway, landmarks, 1e6 * landmarks, torch.zeros(3, 4, dtype=torch.float64)):
        assert_allclose(form(z), network.projection(z), rtol=1e-12, atol=1e-9)


def test_the_form_is_a_copy():
    network = random_network(atlas())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    exportable(network, dtype="float32")
    assert type(network.projection) is AtlasProjection
    assert network.projection.places.dtype == torch.float64
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_torch_export_takes_any_number_of_rows():
    network = random_network(atlas(), (6,))
    example = torch.zeros(2, 5, dtype=torch.float64)
    rows = {0: torch.export.Dim("N")}
    program = torch.export.export(exportable(network), (example,), dynamic_shapes=(rows,)).module()
    x = 3 * torch.randn(300, 5, dtype=torch.float64)
    for n_rows in (1, 2, 300):
        assert_allclose(program(x[:n_rows]), network(x[:n_rows]), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------- what is refused


class Foreign(nn.Module):
    """An encoder with one operation of its own."""

    def __init__(self, operation):
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.operation = operation

    def forward(self, x):
        return self.operation(self.linear(x))


def foreign_network(operation):
    network = MapNetwork(Foreign(operation), relu_network((4, 3, 2)))
    return network.double().requires_grad_(False).eval()


def names(n=5):
    return [f"x{i}" for i in range(n)]


def test_a_foreign_encoder_is_exported_without_explanation(tmp_path):
    network = foreign_network(torch.tanh)
    write_onnx(network, tmp_path / "m.onnx", feature_names=names(), dtype="float64")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    x = torch.randn(9, 5, dtype=torch.float64)
    assert [output.name for output in session.get_outputs()] == ["y"]
    assert_allclose(session.run(None, {"x": x.numpy()})[0], network(x), rtol=1e-12, atol=1e-12)


def test_an_operation_without_a_form_in_onnx_is_named(tmp_path):
    network = foreign_network(torch.special.bessel_j0)
    with pytest.raises(UnsupportedOperation, match=r"no form of the operation prims\.bessel_j0"):
        write_onnx(network, tmp_path / "m.onnx", feature_names=names())
    assert not list(tmp_path.iterdir())


def test_a_choice_that_depends_on_the_rows_is_refused(tmp_path):
    network = foreign_network(lambda z: z if z.sum() > 0 else -z)
    with pytest.raises(UnsupportedOperation, match=r"cannot be written as ONNX.*data-dependent"):
        write_onnx(network, tmp_path / "m.onnx", feature_names=names())


def test_a_layer_without_formulas_is_named(tmp_path):
    network = random_network(atlas())
    network.encoder = nn.Sequential(nn.Linear(5, 4), nn.Tanh()).double()
    message = "W and b of a Tanh .*with_explanation=False"
    with pytest.raises(UnsupportedOperation, match=message):
        ExplainedMap(exportable(network))(torch.zeros(2, 5, dtype=torch.float64))
    with pytest.raises(UnsupportedOperation, match=f"^{message}"):
        write_onnx(network, tmp_path / "m.onnx", feature_names=names(), with_explanation=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["encoder.1", "encoder.1.linear", "projection"])
def test_hooks_are_refused(name):
    network = random_network(atlas())
    network.get_submodule(name).register_forward_hook(lambda _module, _x, output: output**2)
    kind = type(network.get_submodule(name)).__name__
    with pytest.raises(UnsupportedOperation, match=rf"W and b of a {kind} .*without hooks"):
        ExplainedMap(exportable(network))(torch.zeros(2, 5, dtype=torch.float64))


def test_bad_calls_are_refused_before_any_work(tmp_path, monkeypatch):
    network = random_network(atlas())
    with pytest.raises(ValueError, match='dtype must be "float32" or "float64"; got \'float16\''):
        write_onnx(network, tmp_path / "m.onnx", feature_names=names(), dtype="float16")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*no"):
        write_onnx(network, tmp_path / "no" / "m.onnx", feature_names=names())
    with pytest.raises(NotFittedError):
        ParametricTSNE().to_onnx(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'needs onnxscript.*pip install "ptsne\[onnx\]"'):
        write_onnx(network, tmp_path / "m.onnx", feature_names=names())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr("ptsne.export.Path.replace", full)
    with pytest.raises(OSError, match="no space left"):
        _write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


# ------------------------------------------------------------------------------ the command line


def test_the_command_writes_the_same_map(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # of which torch's exporter would warn
    level = logging.getLogger("torch.onnx").level
    X = load_iris().data
    map_ = ParametricTSNE(max_iter=30, random_state=0, projection=(8,)).fit(X)
    map_.save(tmp_path / "model")
    words = ["export", f"{tmp_path}/model", "-o", f"{tmp_path}/new/m.onnx", "--with-explanation"]
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert "input x (N, 4) of float32" in out
    assert (err, logging.getLogger("torch.onnx").level) == ("", level)
    session = onnxruntime.InferenceSession(tmp_path / "new" / "m.onnx")
    y = session.run(["y"], {"x": X.astype(np.float32)})[0]
    assert relative_error(y, map_.embedding_).max() < TOLERANCE["float32"]


def test_the_command_says_what_is_missing(tmp_path, capsys, monkeypatch):
    assert main(["export", f"{tmp_path}/no", "-o", f"{tmp_path}/m.onnx"]) == 2
    assert "there is no such model" in capsys.readouterr().err
    random = ParametricTSNE(max_iter=10, random_state=0, projection=(4,)).fit(load_iris().data)
    random.save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", f"{tmp_path}/model", "-o", f"{tmp_path}/m.onnx"]) == 2
    assert "pip install" in capsys.readouterr().err
