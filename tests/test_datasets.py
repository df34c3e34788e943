"""Data sets: splits, caches, folders of the user, archives, refusals."""

import gzip
import hashlib
import io
import os
import struct
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ptsne.datasets import NAMES, catalogue, load, readers
from ptsne.datasets.catalogue import ImageSet, RemoteFile
from ptsne.datasets.download import sha256
from ptsne.datasets.loading import cache_folder
from web_server import serving


@pytest.fixture(autouse=True)
def nobody_elses_data(monkeypatch, tmp_path):
    """Neither the user's data nor the user's cache takes part, unless a test says so."""
    monkeypatch.delenv("PTSNE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("linux", "XDG_CACHE_HOME", ".cache"),
        ("darwin", None, "Library/Caches"),
        ("win32", "LOCALAPPDATA", "AppData/Local"),
    ],
)
def test_downloads_go_where_the_platform_keeps_such(
    monkeypatch, tmp_path, platform, variable, folder
):
    monkeypatch.setattr("ptsne.datasets.loading.sys", SimpleNamespace(platform=platform))
    if variable is not None:
        assert cache_folder() == tmp_path / "cache" / "ptsne"
        monkeypatch.delenv(variable)
    assert cache_folder() == tmp_path / folder / "ptsne"


# --- the four files of MNIST, small


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def small_images(seed):
    rng = np.random.default_rng(seed)
    return {
        "train-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (7, 3, 2), dtype=np.uint8)),
        "train-labels-idx1-ubyte.gz": idx(rng.integers(0, 3, 7, dtype=np.uint8)),
        "t10k-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (4, 3, 2), dtype=np.uint8)),
        "t10k-labels-idx1-ubyte.gz": idx(rng.integers(0, 3, 4, dtype=np.uint8)),
    }


FILES = {"mnist": small_images(1), "fashion-mnist": small_images(2)}


@pytest.fixture
def small_sets(monkeypatch):
    """Catalogue of two sets of seven and four images, on a local server."""
    both = {f"{name}/{file}": data for name, files in FILES.items() for file, data in files.items()}
    with serving(both) as server:
        for name, files in FILES.items():
            entries = [
                RemoteFile(file, hashlib.sha256(data).hexdigest(), (f"{server.url}{name}/{file}",))
                for file, data in files.items()
            ]
            pairs = (entries[0], entries[1]), (entries[2], entries[3])
            small = ImageSet(*pairs, ("a", "b", "c"), "nobody", "none")
            monkeypatch.setitem(catalogue.IMAGE_SETS, name, small)
        yield server


def write(folder, name):
    folder.mkdir(parents=True)
    for file, content in FILES[name].items():
        (folder / file).write_bytes(content)


def expected_rows(name):
    with gzip.open(io.BytesIO(FILES[name]["train-images-idx3-ubyte.gz"])) as stream:
        return np.frombuffer(stream.read()[16:], np.uint8).reshape(7, 6) / np.float32(255)


def test_splits(small_sets):
    train, test, everything = (load("mnist", split=split) for split in ("train", "test", "all"))
    assert train.X.shape == (7, 6)
    assert test.X.shape == (4, 6)
    np.testing.assert_array_equal(everything.X, np.vstack([train.X, test.X]))
    np.testing.assert_array_equal(everything.y, np.hstack([train.y, test.y]))
    np.testing.assert_array_equal(train.X, expected_rows("mnist"))
    assert train.X.dtype == np.float32
    assert train.y.dtype == np.int64
    assert train.image_shape == (3, 2)
    assert train.images.shape == (7, 3, 2)
    assert train.feature_names[3] == "pixel 1,1"
    assert train.target_names == ["a", "b", "c"]


def test_a_split_needs_its_own_files_only(small_sets):
    load("mnist", split="test")
    assert {path for path, _ in small_sets.requests} == {
        "/mnist/t10k-images-idx3-ubyte.gz",
        "/mnist/t10k-labels-idx1-ubyte.gz",
    }


def test_the_cache_is_used_and_repaired(small_sets):
    load("fashion_MNIST")
    assert len(small_sets.requests) == 2
    load("fashion-mnist", download=False)
    assert len(small_sets.requests) == 2
    damaged = cache_folder() / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    np.testing.assert_array_equal(load("fashion-mnist").X, expected_rows("fashion-mnist"))
    assert len(small_sets.requests) == 3


@pytest.mark.parametrize("own_folder", [True, False])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_folder_of_the_user(small_sets, monkeypatch, tmp_path, own_folder, by):
    write(tmp_path / "data" / "mnist", "mnist")
    folder = tmp_path / "data" / "mnist" if own_folder else tmp_path / "data"
    home = folder if by == "argument" else None
    if by == "environment":
        monkeypatch.setenv("PTSNE_DATA", str(folder))
    data = load("mnist", split="all", data_home=home, download=False)
    np.testing.assert_array_equal(data.X[:7], expected_rows("mnist"))
    assert not small_sets.requests


def test_data_home_comes_before_the_environment(small_sets, monkeypatch, tmp_path):
    write(tmp_path / "one" / "mnist", "mnist")
    monkeypatch.setenv("PTSNE_DATA", str(tmp_path / "one"))
    load("mnist", data_home=tmp_path / "two")
    assert not small_sets.requests  # the second place in the order has it
    write(tmp_path / "two" / "mnist", "mnist")
    (tmp_path / "one" / "mnist" / "train-images-idx3-ubyte.gz").unlink()
    load("mnist", data_home=tmp_path / "two", download=False)


def test_data_home_is_where_downloads_go(small_sets, tmp_path):
    load("mnist", data_home=str(tmp_path / "here"))
    assert (tmp_path / "here" / "mnist" / "train-labels-idx1-ubyte.gz").exists()
    assert not cache_folder().exists()


def test_the_files_of_another_set_are_not_taken(small_sets, tmp_path, caplog):
    write(tmp_path / "mnist", "mnist")  # the same file names
    data = load("fashion-mnist", data_home=tmp_path / "mnist")
    np.testing.assert_array_equal(data.X, expected_rows("fashion-mnist"))
    assert "other checksum" in caplog.text


def test_missing_files_are_named(small_sets, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.gz of mnist") as failure:
        load("mnist", data_home=tmp_path / "nowhere", download=False)
    assert str(tmp_path / "nowhere" / "mnist") in str(failure.value)
    assert str(cache_folder() / "mnist") in str(failure.value)


def test_the_real_catalogue():
    for images in catalogue.IMAGE_SETS.values():
        files = (*images.train, *images.test)
        assert len({file.sha256 for file in files}) == 4
        assert len(images.target_names) == 10
        for file in files:
            assert len(file.sha256) == 64
            assert all(url.endswith("/" + file.name) for url in file.urls)


@pytest.mark.network
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_sets(name, monkeypatch, real_environment):
    for variable, value in real_environment.items():
        monkeypatch.setenv(variable, value)
    train, test = (load(name, split=split) for split in ("train", "test"))
    assert train.images.shape == (60_000, 28, 28)
    assert test.images.shape == (10_000, 28, 28)
    # labels belong to images: the nearest class mean is mostly the label
    means = np.stack([train.X[train.y == c].mean(axis=0) for c in range(10)])
    distances = np.square(test.X[:, None, ::7] - means[None, :, ::7]).sum(axis=2)
    assert np.mean(distances.argmin(axis=1) == test.y) > 0.6


@pytest.fixture(scope="session")
def real_environment():
    names = ("PTSNE_DATA", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME")
    return {name: os.environ[name] for name in names if name in os.environ}


# --- CIFAR-10


def cifar_records(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n, dtype=np.uint8)
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(n, -1)
    return images, labels, np.hstack([labels[:, None], planes]).tobytes()


BATCHES = {f"data_batch_{i}.bin": cifar_records(2, i) for i in range(1, 6)} | {
    "test_batch.bin": cifar_records(3, 9)
}


def cifar_archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo("cifar-10-batches-bin")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, (_, _, content) in sorted(BATCHES.items(), reverse=True):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def check_cifar(load_split):
    train, test, everything = (load_split(split) for split in ("train", "test", "all"))
    images = np.concatenate([BATCHES[f"data_batch_{i}.bin"][0] for i in range(1, 6)])
    labels = np.concatenate([BATCHES[f"data_batch_{i}.bin"][1] for i in range(1, 6)])
    np.testing.assert_array_equal(train.images, images / np.float32(255))
    np.testing.assert_array_equal(train.y, labels)
    np.testing.assert_array_equal(test.y, BATCHES["test_batch.bin"][1])
    np.testing.assert_array_equal(everything.X, np.vstack([train.X, test.X]))
    assert train.feature_names[3 * (2 * 32 + 5) + 1] == "green 2,5"
    assert len(train.target_names) == 10


def test_cifar10_archive(tmp_path, monkeypatch):
    content = cifar_archive()
    with serving({"cifar.tar.gz": content}) as server:
        file = RemoteFile(
            "cifar.tar.gz", hashlib.sha256(content).hexdigest(), (server.url + "cifar.tar.gz",)
        )
        monkeypatch.setattr(catalogue, "CIFAR10_ARCHIVE", file)
        check_cifar(lambda split: load("cifar10", split=split, data_home=tmp_path))
        assert len(server.requests) == 1


@pytest.mark.parametrize("inner", [".", "cifar10", "cifar-10-batches-bin"])
def test_cifar10_unpacked(tmp_path, inner):
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    for name, (_, _, content) in BATCHES.items():
        (folder / name).write_bytes(content)
    check_cifar(lambda split: load("cifar10", split=split, data_home=tmp_path, download=False))


@pytest.mark.parametrize("key", ["X", "delta"])
def test_cifar10_npz(tmp_path, key):
    parts = {
        "train20k": [BATCHES[f"data_batch_{i}.bin"] for i in range(1, 6)],
        "test10k": [BATCHES["test_batch.bin"]],
    }
    for part, batches in parts.items():
        images = np.concatenate([batch[0] for batch in batches])
        labels = np.concatenate([batch[1] for batch in batches])
        stored = images if key == "X" else differences(images)
        np.savez(tmp_path / f"cifar10_{part}.npz", y=labels, **{key: stored})
    check_cifar(lambda split: load("cifar10", split=split, data_home=tmp_path, download=False))


def differences(images):
    """Twin of the decoder: R-G, G, B-G, differenced pixel by pixel, modulo 256."""
    planes = images.transpose(0, 3, 1, 2).astype(int)
    planes[:, 0] -= planes[:, 1]
    planes[:, 2] -= planes[:, 1]
    result = np.zeros_like(planes)
    for r in range(32):
        for c in range(32):
            result[:, :, r, c] = planes[:, :, r, c]
            result[:, :, r, c] -= planes[:, :, r - 1, c] if r else 0
            result[:, :, r, c] -= planes[:, :, r, c - 1] if c else 0
            result[:, :, r, c] += planes[:, :, r - 1, c - 1] if r and c else 0
    return (result % 256).astype(np.uint8)


def test_cifar10_without_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="cifar-10-binary"):
        load("cifar10", data_home=tmp_path, download=False)


# --- PBMC


@pytest.fixture
def pbmc(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "pbmc4k.npz",
        counts=rng.integers(0, 900, (6, 5)).astype(np.uint16),
        X_pca50=rng.normal(size=(6, 3)).astype(np.float32),
        y=np.array([1, 3, 3, 8, 1, 8], dtype=np.int16),
    )
    return tmp_path


def test_pbmc(pbmc):
    components = load("pbmc4k", data_home=pbmc)
    assert components.X.shape == (6, 3)
    assert components.feature_names == ["PC 1", "PC 2", "PC 3"]
    assert components.y.tolist() == [0, 1, 1, 2, 0, 2]
    assert components.target_names == ["cluster 1", "cluster 3", "cluster 8"]
    assert components.images is None
    counts = load("pbmc4k-counts", data_home=pbmc)
    assert counts.X.shape == (6, 5)
    assert counts.feature_names[4] == "gene 5"


def test_pbmc_is_not_offered_for_download(tmp_path):
    with pytest.raises(FileNotFoundError, match="not offered for download"):
        load("pbmc4k", data_home=tmp_path)


# --- tables


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
def test_tables(name):
    data = load(name, download=False)
    assert name in NAMES
    assert data.X.shape == (len(data.y), len(data.feature_names))
    assert set(data.y) == set(range(len(data.target_names)))
    assert all(type(each) is str for each in [*data.feature_names, *data.target_names])
    np.testing.assert_array_equal(load(name, split="all").X, data.X)


def test_digits_are_images():
    data = load("digits")
    np.testing.assert_array_equal(data.images * 16, load_digits().images)
    assert data.X.max() == 1


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("minst",), "unknown data set 'minst'; the known ones are iris"),
        (("mnist", "dev"), "split must be one of train, test, all"),
        (("iris", "test"), "published in one part"),
    ],
)
def test_load_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(arguments[0], split=[*arguments, "train"][1])


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "x.gz"
    whole = idx(np.zeros((2, 3), dtype=np.uint8))
    for content, message in (
        (whole[:-12], "not a whole gzip"),
        (b"plain text", "not a whole gzip"),
        (gzip.compress(b"plain text"), "begin with 00 00 08, found 70 6c 61"),
        (gzip.compress(gzip.decompress(whole)[:-1]), r"announces \(2, 3\) values and holds 5"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            readers.read_idx(path)
    path.write_bytes(whole)
    assert readers.read_idx(path).shape == (2, 3)
    assert sha256(path) == hashlib.sha256(whole).hexdigest()


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "x.tar.gz"
    whole = cifar_archive()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole archive"):
        readers.read_tar_members(path, ["data_batch_1.bin"])
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"lacks data_batch_6.bin"):
        readers.read_tar_members(path, ["data_batch_6.bin"])
    with pytest.raises(ValueError, match="3073 bytes per image, found 5"):
        readers.read_cifar_records(b"12345", "data_batch_1.bin")


def test_strangers_arrays_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, y=np.zeros(2), other=np.zeros(3))
    with pytest.raises(ValueError, match="lacks X; it holds y, other"):
        readers.read_cifar_npz(path)
    np.savez(path, y=np.zeros(2), X=np.zeros((3, 32, 32, 3)))
    with pytest.raises(ValueError, match=r"found \(3, 32, 32, 3\) and \(2,\)"):
        readers.read_cifar_npz(path)
    np.savez(path, y=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        readers.read_npz(path, ("y",))


def test_labels_must_belong_to_the_images(small_sets, monkeypatch, tmp_path):
    images = catalogue.IMAGE_SETS["mnist"]
    crossed = images._replace(train=(images.train[0], images.test[1]))
    monkeypatch.setitem(catalogue.IMAGE_SETS, "mnist", crossed)
    with pytest.raises(ValueError, match="7 images, but there are 4 labels"):
        load("mnist")
