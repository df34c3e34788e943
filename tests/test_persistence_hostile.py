"""Files that are damaged, foreign or made to harm: each is refused by name, and nothing runs."""

import io
import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from sklearn.datasets import load_iris
from torch import nn

import ptsne
from ptsne import ParametricTSNE, cli, persistence
from ptsne.persistence.file import header_checksum

X = load_iris().data[::10]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model"
    map_ = ParametricTSNE(
        perplexity=4, max_iter=15, n_landmarks=3, encoder=(2,), latent_dim=2, random_state=0
    ).fit(X)
    map_.save(path)
    return path


@pytest.fixture(scope="module")
def data(path):
    return path.read_bytes()


@pytest.fixture(scope="module")
def map_(path):
    return ptsne.load(path)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "the-file"


def parts(data):
    """Header of safetensors, our header, and where the numbers start."""
    start = 8 + int.from_bytes(data[:8], "little")
    outer = json.loads(data[8:start])
    return outer, json.loads(outer["__metadata__"]["ptsne"]), start


def with_outer(data, outer):
    text = json.dumps(outer).encode()
    return len(text).to_bytes(8, "little") + text + data[parts(data)[2] :]


def sealed(tensors, header, **changed):
    """A file whose checksums agree, whatever it holds."""
    header = {**header, **changed, "checksum": persistence.checksum(tensors)}
    header["header_checksum"] = header_checksum(header)
    return save(tensors, {"ptsne": json.dumps(header)})


class Bomb:
    """Leaves a mark where it is unpickled."""

    mark = "unpickled"

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def refused(target, contents, match=""):
    target.write_bytes(contents)
    with pytest.raises(ValueError, match=f"(?s)the-file.*{match}") as found:
        ptsne.load(target)
    assert len(str(found.value)) < 2000


# --- damaged and foreign --------------------------------------------------------------------------


def test_every_cut_is_refused(target, data):
    start = parts(data)[2]
    for length in [*range(0, start, 97), *range(start, len(data), 997), len(data) - 1]:
        refused(target, data[:length], "empty" if length == 0 else "is not a ptsne model file")


def test_appended_bytes_are_refused(target, data):
    refused(target, data + b"\0", "not a ptsne model file")


@pytest.mark.parametrize("length", [2**20, 2**40, 2**60, 2**64 - 1])
def test_a_giant_header_takes_no_memory(target, data, length):
    target.write_bytes(length.to_bytes(8, "little") + data[8:])
    tracemalloc.start()
    with pytest.raises(ValueError, match="the-file is not a ptsne model file"):
        ptsne.load(target)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_pickles_and_archives_are_not_opened(target, monkeypatch):
    monkeypatch.chdir(target.parent)
    refused(target, pickle.dumps(Bomb()), "a pickle; it may hold code and was not opened")
    refused(target, pickle.dumps(Bomb(), protocol=0), "not a ptsne model file")
    archive = io.BytesIO()
    torch.save({"bomb": Bomb()}, archive)
    refused(target, archive.getvalue(), "a zip archive")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../evil", "x")
    refused(target, archive.getvalue(), "a zip archive")
    array = io.BytesIO()
    np.save(array, np.array([Bomb()], dtype=object), allow_pickle=True)
    refused(target, array.getvalue(), "a NumPy array")
    assert not (target.parent / Bomb.mark).exists()


def test_other_things_than_files_are_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="folder or a device; pass the file"):
        ptsne.load(tmp_path)
    with pytest.raises(IsADirectoryError, match="folder or a device"):
        ptsne.load(os.devnull)
    with pytest.raises(FileNotFoundError, match=r"no model file .*missing"):
        ptsne.load(tmp_path / "missing")


@pytest.mark.parametrize(
    "text",
    [
        b"[1]",
        b"{}",
        b'{"__metadata__": {}}',
        b'{"__metadata__": 1}',
        b'{"__metadata__": {"ptsne": 1}}',
        b'{"__metadata__": {"ptsne": "[]"}}',
        b'{"__metadata__": {"ptsne": "{}"}}',
        b'{"__metadata__": {"ptsne": "' + b"[" * 100_000 + b'"}}',
        b'{"__metadata__": {"ptsne": "' + b"9" * 10_000 + b'"}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:40]),
)
def test_other_headers_are_refused(target, text):
    refused(target, len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize("found", [0, 3, 99, -1, 1.0, "2", None, True, [2]])
def test_other_formats_are_refused(target, data, found):
    outer, header, _ = parts(data)
    outer["__metadata__"]["ptsne"] = json.dumps(header | {"format": found})
    refused(target, with_outer(data, outer), r"reads formats 1 to 2; install .* wrote it \(0")


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "C64", "F4", "nothing", None, 7])
def test_tensors_of_other_types_are_refused(target, data, kind):
    outer, _, _ = parts(data)
    outer["embedding_"]["dtype"] = kind
    refused(target, with_outer(data, outer))


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [2**62, 0]},
        {"shape": [-1, 2]},
        {"shape": [15, 3]},
        {"data_offsets": [0, 2**60]},
        {"data_offsets": [8, 0]},
        {"dtype": "I64"},
        {"shape": [2, 15]},
    ],
    ids=str,
)
def test_tensors_of_other_places_are_refused(target, data, entry):
    outer, _, _ = parts(data)
    outer["embedding_"] |= entry
    refused(target, with_outer(data, outer))


def test_a_header_without_its_checksum_is_refused(target, data):
    outer, header, _ = parts(data)
    del header["header_checksum"]
    outer["__metadata__"]["ptsne"] = json.dumps(header)
    refused(target, with_outer(data, outer), "damaged: its checksum")


# --- whole, but no map ----------------------------------------------------------------------------


def changed(name, change):
    """Tensors with one of them changed, or left out."""

    def apply(tensors):
        value = tensors.pop(name)
        found = change(value.clone())
        return tensors if found is None else tensors | {name: found}

    return apply


def filled(value):
    return lambda tensor: tensor.flatten().index_fill(0, torch.tensor([0]), value).view_as(tensor)


MISFITS = {
    "NaN weight": (changed("network.projection.places", filled(np.nan)), "places holds NaN"),
    "infinite weight": (changed("network.projection.places", filled(np.inf)), "not finite"),
    "other weight": (changed("network.encoder.0.mean", lambda t: t + 1), "elsewhere"),
    "no temperature": (
        changed("network.projection.temperature", lambda t: 0 * t),
        "no row passes through",
    ),
    "single weight": (changed("network.encoder.0.mean", torch.Tensor.float), "all be float64 or"),
    "whole weights": (changed("network.encoder.0.mean", torch.Tensor.long), "holds torch.int64"),
    "no weight": (changed("network.encoder.0.mean", lambda t: None), "networks cannot be rebuilt"),
    "no network": (
        lambda ts: {k: v for k, v in ts.items() if not k.startswith("network.")},
        "networks cannot be rebuilt",
    ),
    "no landmarks": (changed("network.projection.landmarks", lambda t: t[:0]), "rebuilt"),
    "flat landmarks": (changed("network.projection.landmarks", torch.flatten), "rebuilt"),
    "wide encoder": (
        changed("network.encoder.1.linear.weight", lambda t: torch.cat([t, t])),
        "size mismatch",
    ),
    "short mean": (changed("network.encoder.0.mean", lambda t: t[:1]), "elsewhere|size"),
    "huge shape": (
        changed("network.encoder.1.branch.0.weight", lambda t: torch.empty(10**15, 0)),
        "cannot be rebuilt",
    ),
    "huge layers": (
        lambda ts: (
            ts
            | {
                f"network.encoder.1.branch.{i}.weight": torch.empty(10**7, 0).double()
                for i in (0, 2)
            }
        ),
        "size mismatch",
    ),
    "extra weight": (
        lambda ts: ts | {"network.encoder.9": torch.ones(1)},
        "all be float64|rebuilt",
    ),
    "path": (lambda ts: ts | {"../../etc/passwd": torch.ones(1)}, r"no map has tensors \['\.\./"),
    "path below": (
        lambda ts: ts | {"network.../../evil": torch.ones(1).double()},
        "networks cannot be rebuilt",
    ),
    "attribute": (lambda ts: ts | {"transform": torch.ones(1)}, "no map has tensors"),
    "negative row number": (changed("landmark_indices_", filled(-1)), "no row numbers, 0 to 14"),
    "high row number": (changed("landmark_indices_", filled(15)), "no row numbers, 0 to 14"),
    "few row numbers": (changed("landmark_indices_", lambda t: t[:2]), "has shape"),
    "broken row numbers": (changed("landmark_indices_", torch.Tensor.double), "holds torch.float"),
    "no row numbers": (changed("landmark_indices_", lambda t: None), "lacks"),
    "no mean": (changed("_mean", lambda t: None), r"lacks \['_mean'\]"),
    "NaN mean": (changed("_mean", filled(np.nan)), "_mean holds NaN"),
    "other mean": (changed("_mean", lambda t: t + 1), "elsewhere"),
    "deep mean": (changed("_mean", lambda t: t[None]), "has shape"),
    "NaN place": (changed("embedding_", filled(np.nan)), "embedding_ holds NaN"),
    "wide places": (changed("embedding_", lambda t: t.repeat(1, 2)), "has shape"),
    "whole places": (changed("embedding_", torch.Tensor.long), "embedding_ holds torch.int64"),
    "narrow codes": (changed("_known_codes", lambda t: t[:, 1:].contiguous()), "has shape"),
    "codes of NaN": (changed("_known_codes", filled(np.nan)), "holds NaN or infinity"),
    "wide rows": (changed("_landmark_rows", lambda t: t.repeat(1, 2)), "has shape"),
    "infinite rows": (changed("_landmark_rows", filled(-np.inf)), "holds NaN or infinity"),
    "one trust array": (changed("_trust_readout", lambda t: None), "one is missing"),
    "deep readout": (changed("_trust_readout", lambda t: t.repeat(2, 1)), "does not fit the codes"),
    "falling quantiles": (changed("_trust_quantiles", lambda t: t.flip(1)), "do not ascend"),
    "other probe": (changed("probe", lambda t: t + 1), "elsewhere"),
    "wide probe": (changed("probe", lambda t: t.repeat(1, 2)), "has shape"),
    "half an inverse": (lambda ts: ts | {"inverse.0.mean": torch.zeros(2)}, "its inverse cannot"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_contents_that_fit_their_checksum_and_no_map_are_refused(kind, path, target):
    tensors, header = persistence.read(path)
    change, match = MISFITS[kind]
    refused(target, sealed(change(dict(tensors)), header), match)


HEADERS = [
    (("parameters",), None, "parameters"),
    (("parameters",), [], "parameters"),
    (("parameters", "unknown"), 1, r"has no parameters \['unknown'\]"),
    (("parameters", "self"), 1, "has no parameters"),
    (("parameters", "__class__"), "os.system", "has no parameters"),
    (("parameters", "encoder"), {"not stored": "os.system"}, "pass such a module"),
    (("parameters", "encoder"), {"not stored": 1}, "parameter encoder"),
    (("parameters", "encoder"), {"__reduce__": ["os.system", "id"]}, "parameter encoder"),
    (("parameters", "metric"), {"not stored": "x"}, "parameter metric"),
    (("parameters", "encoder"), "pickle", "encoder"),
    (("parameters", "encoder"), [[1]], "list of other than numbers"),
    (("parameters", "callbacks"), ["os.system"], "list of other than numbers"),
    (("parameters", "callbacks"), "os.system", "callbacks"),
    (("parameters", "n_components"), 2**70, "n_components"),
    (("parameters", "dof"), -1, "dof"),
    (("parameters", "dof"), "NaN", "dof"),
    (("parameters", "device"), "; rm -rf /", "device"),
    (("parameters", "device"), "meta", "device"),
    (("parameters", "device"), 7.5, ""),
    (("fitted",), {}, "fitted numbers"),
    (("fitted", "transform"), 1, "fitted numbers"),
    (("fitted", "n_features_in_"), 5, "has shape"),
    (("fitted", "n_features_in_"), 4.0, "number of columns"),
    (("fitted", "n_features_in_"), True, "number of columns"),
    (("fitted", "_n_features_out"), 3, "has shape"),
    (("fitted", "_n_features_out"), 10**400, "dimension"),
    (("fitted", "n_iter_"), -1, "iterations"),
    (("fitted", "kl_divergence_"), "0", "no number"),
    (("fitted", "perplexity_"), [], "perplexity_"),
    (("fitted", "perplexity_"), [1, None], "perplexity_"),
    (("fitted", "history_"), {"a": 1}, "history_"),
    (("fitted", "history_"), [{"phase": []}], "history_"),
    (("versions",), "0.1", "versions"),
    (("feature_names",), ["a"], "list of 4 texts"),
    (("feature_names",), [1, 2, 3, 4], "list of 4 texts"),
    (("feature_names",), {"a": 1}, "list of 4 texts"),
]


@pytest.mark.parametrize(("place", "value", "match"), HEADERS, ids=str)
def test_headers_that_fit_their_checksum_and_no_map_are_refused(path, target, place, value, match):
    tensors, header = persistence.read(path)
    inner = header
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    refused(target, sealed(tensors, header), match)


def test_older_files_lack_what_is_new(path, target, map_):
    """A format-1 file has no header checksum, no probe, and may lack newer parameters."""
    tensors, header = persistence.read(path)
    tensors = {name: value for name, value in tensors.items() if name != "probe"}
    del header["parameters"]["fidelity_weight"], header["header_checksum"]
    header |= {"format": 1, "checksum": persistence.checksum(tensors)}
    target.write_bytes(save(tensors, {"ptsne": json.dumps(header)}))
    again = ptsne.load(target)
    np.testing.assert_array_equal(again.transform(X), map_.transform(X))
    assert again.fidelity_weight == ParametricTSNE().fidelity_weight


def test_a_foreign_module_of_another_shape_is_refused(path, target):
    tensors, header = persistence.read(path)
    header["parameters"]["encoder"] = {"not stored": "Linear"}
    target.write_bytes(sealed(tensors, header))
    for module in (nn.Linear(4, 2), nn.Sequential(), nn.Identity()):
        with pytest.raises(ValueError, match="the-file cannot be loaded: its networks cannot be"):
            ptsne.load(target, encoder=module)


# --- anything at all ------------------------------------------------------------------------------

FUZZ = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def same_or_refused(target, contents, map_):
    """Load contents: a clear error, or a map that is equal in all it says."""
    target.write_bytes(contents)
    again, message = None, "the-file"
    try:
        again = ptsne.load(target)
    except (ValueError, OSError) as error:
        message = str(error)
    assert "the-file" in message
    if again is None:
        return None
    assert again.network_.state_dict().keys() == map_.network_.state_dict().keys()
    for name, value in again.network_.state_dict().items():
        assert torch.equal(value, map_.network_.state_dict()[name])
    np.testing.assert_array_equal(again.transform(X), map_.transform(X))
    return again


def assert_equal(again, map_):
    if again is not None:
        assert str(again.get_params()) == str(map_.get_params())
        for name in ("embedding_", "landmark_indices_", "_mean", "_landmark_rows"):
            np.testing.assert_array_equal(getattr(again, name), getattr(map_, name))
        for name in ("kl_divergence_", "n_iter_", "perplexity_", "history_"):
            assert str(getattr(again, name)) == str(getattr(map_, name))


@FUZZ
@given(draw=st.data())
def test_edited_bytes_never_give_another_map(data, map_, target, draw):
    edited = bytearray(data)
    start = parts(data)[2]
    places = st.one_of(st.integers(0, start - 1), st.integers(0, len(data) - 1), st.integers(0, 7))
    for place in draw.draw(st.lists(places, min_size=1, max_size=4)):
        edited[place] = draw.draw(st.integers(0, 255))
    assert_equal(same_or_refused(target, bytes(edited), map_), map_)


@FUZZ
@given(draw=st.data())
def test_moved_bytes_never_give_another_map(data, map_, target, draw):
    a, b = sorted(draw.draw(st.tuples(*2 * [st.integers(0, len(data))])))
    middle = draw.draw(st.sampled_from([b"", data[a:b][::-1], 2 * data[a:b], bytes(b - a)]))
    assert_equal(same_or_refused(target, data[:a] + middle + data[b:], map_), map_)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["not stored", "dtype", "shape", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def containers(value):
    """All objects and lists of a JSON value."""
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, (dict, list)):
        yield value
        for item in inner:
            yield from containers(item)


def edit(draw, value):
    """Change, add or remove something of a JSON value in place."""
    holder = draw.draw(st.sampled_from([c for c in containers(value) if c]))
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    key = draw.draw(st.sampled_from(keys))
    if isinstance(holder, dict) and draw.draw(st.integers(0, 4)) == 0:
        holder[draw.draw(st.text(max_size=8))] = holder.pop(key)
    else:
        holder[key] = draw.draw(JSON)


@FUZZ
@given(draw=st.data())
def test_edited_tensor_headers_never_give_another_map(data, map_, target, draw):
    outer, _, _ = parts(data)
    edit(draw, outer)
    assert_equal(same_or_refused(target, with_outer(data, outer), map_), map_)


@FUZZ
@given(draw=st.data())
def test_edited_headers_never_give_another_map(data, map_, target, draw):
    outer, header, _ = parts(data)
    edit(draw, header)
    outer["__metadata__"]["ptsne"] = json.dumps(header)
    assert_equal(same_or_refused(target, with_outer(data, outer), map_), map_)


@FUZZ
@given(draw=st.data())
def test_sealed_headers_never_place_rows_elsewhere(path, map_, target, draw):
    """Whoever seals a header may change what it tells, not what the networks do."""
    tensors, header = persistence.read(path)
    edit(draw, header)
    if not isinstance(header.get("format"), int):
        header["format"] = 2
    same_or_refused(target, sealed(tensors, header), map_)


def test_a_map_of_another_machine_says_how_to_use_it_here(path, target, map_):
    tensors, header = persistence.read(path)
    header["parameters"]["device"] = "cuda:63"
    target.write_bytes(sealed(tensors, header))
    again = ptsne.load(target)
    with pytest.raises(ValueError, match='use device="cpu"'):
        again.transform(X)
    np.testing.assert_array_equal(again.set_params(device="cpu").transform(X), map_.transform(X))


def test_the_command_line_names_a_bad_file(data, target, capsys):
    target.write_bytes(data[:-1])
    table = target.with_name("table.npy")
    np.save(table, X)
    out = target.with_name("out.csv")
    assert cli.main(["transform", str(target), str(table), "-o", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "the-file is not a ptsne model file, or is damaged" in lines[0]
    assert not out.exists()
