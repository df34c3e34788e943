"""Find, check and read a data set by its name."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets as sklearn_datasets

from ptsne.datasets import catalogue, readers
from ptsne.datasets.catalogue import ImageSet, RemoteFile
from ptsne.datasets.download import fetch, sha256

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_Part: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # images, labels

SPLITS = ("train", "test", "all")
TABLES = ("iris", "wine", "breast_cancer", "digits")
NAMES = (*TABLES, *catalogue.IMAGE_SETS, "cifar10", "pbmc4k", "pbmc4k-counts")
"""Names that `load` knows."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows, classes, and what they are called.

    Parameters
    ----------
    name : str
        As passed to `load`.
    X : ndarray of shape (N, D)
        Rows. Pixels are float32 from 0 to 1, tables float64 as published.
    y : ndarray of shape (N,), int64
        Classes, from 0.
    feature_names : list of str
        D names.
    target_names : list of str
        Name of each class.
    image_shape : tuple of int or None
        (rows, columns) or (rows, columns, channels) of a row that is an image.
    source : str
        Whom to cite.
    licence : str
        Terms under which the data is given.

    Examples
    --------
    >>> from ptsne.datasets import load
    >>> digits = load("digits")
    >>> digits.X.shape, digits.images.shape, digits.licence
    ((1797, 64), (1797, 8, 8), 'CC BY 4.0')
    """

    name: str
    X: NDArray[Any]
    y: NDArray[np.int64]
    feature_names: list[str]
    target_names: list[str]
    image_shape: tuple[int, ...] | None
    source: str
    licence: str

    @property
    def images(self) -> NDArray[Any] | None:
        """The rows as images, (N, *image_shape), or None."""
        return None if self.image_shape is None else self.X.reshape(-1, *self.image_shape)


def load(
    name: str,
    *,
    split: str = "train",
    data_home: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Dataset:
    """Load a data set by its name.

    Files are looked for in ``data_home``, then in the folder that the environment variable
    ``PTSNE_DATA`` names, then in the user's cache (``~/.cache/ptsne`` on Linux); each may hold the
    files themselves or a folder named after the set. What is missing is downloaded into
    ``data_home``, or into the cache without one, and checked.

    Parameters
    ----------
    name : str
        One of "iris", "wine", "breast_cancer", "digits" (they come with scikit-learn); "mnist",
        "fashion-mnist", "cifar10"; "pbmc4k" (50 principal components), "pbmc4k-counts" (genes).
    split : {"train", "test", "all"}, default="train"
        Rows of a set that is published in two parts; a set published in one has no "test".
    data_home : path-like, optional
        Folder to look in first.
    download : bool, default=True
        Whether missing files may be downloaded; if not, they are a FileNotFoundError. A download
        that fails is a ConnectionError.

    Returns
    -------
    Dataset
        ``X`` (N, D), ``y`` (N,), names, image shape, source and licence.

    Raises
    ------
    ValueError
        If the name is unknown, or there is no such split.

    Examples
    --------
    >>> from ptsne.datasets import load
    >>> load("iris").X.shape
    (150, 4)
    """
    known = {_normalize(each): each for each in NAMES}
    if _normalize(name) not in known:
        raise ValueError(f"unknown data set {name!r}; the known ones are {', '.join(NAMES)}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    name = known[_normalize(name)]
    folders = _Folders.of(data_home, download=download)
    if name in catalogue.IMAGE_SETS:
        return _load_images(name, catalogue.IMAGE_SETS[name], split, folders)
    if name == "cifar10":
        return _load_cifar10(split, folders)
    if split == "test":
        raise ValueError(f'{name} is published in one part; pass split="all" and split it yourself')
    return _load_table(name) if name in TABLES else _load_pbmc(name, folders)


def cache_folder() -> Path:
    """Folder for downloads: the platform's, ``XDG_CACHE_HOME`` respected."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ptsne"


def _normalize(name: str) -> str:
    return name.lower().replace("_", "-")


class _Folders(NamedTuple):
    """Folders to look in, and the one to download into, or None."""

    searched: tuple[Path, ...]
    target: Path | None

    @classmethod
    def of(cls, data_home: str | os.PathLike[str] | None, *, download: bool) -> _Folders:
        given = [data_home] if data_home is not None else []
        from_environment = [os.environ["PTSNE_DATA"]] if os.environ.get("PTSNE_DATA") else []
        named = [Path(folder).expanduser() for folder in (*given, *from_environment)]
        target = named[0] if given else cache_folder()
        return cls((*named, cache_folder()), target if download else None)

    def find(self, set_name: str, pattern: str) -> Iterator[Path]:
        """Files in a folder named after the set or directly in one of the folders."""
        for folder in self.searched:
            for place in (folder / set_name, folder):
                yield from sorted(place.glob(pattern))

    def get(self, set_name: str, file: RemoteFile) -> Path:
        """The file with the right content, downloaded if need be."""
        for path in self.find(set_name, file.name):
            if sha256(path) == file.sha256:
                return path
            logger.warning("%s is not the %s of %s: other checksum", path, file.name, set_name)
        if self.target is None:
            raise FileNotFoundError(self.missing(set_name, file.name))
        return fetch(file, self.target / set_name)

    def missing(self, set_name: str, file_name: str) -> str:
        places = ", ".join(str(folder / set_name) for folder in self.searched)
        return (
            f"{file_name} of {set_name} was not found, or not with the right content, in {places} "
            "or the folders above; pass data_home, set PTSNE_DATA, or allow the download"
        )


# --- one function per kind of set -----------------------------------------------------------------


def _load_images(name: str, images: ImageSet, split: str, folders: _Folders) -> Dataset:
    parts = []
    for files in _chosen(split, images.train, images.test):
        image_path, label_path = (folders.get(name, file) for file in files)
        parts.append((readers.read_idx(image_path), readers.read_idx(label_path)))
        _check_as_many(image_path, *parts[-1])
    return _image_dataset(name, parts, images.target_names, images.source, images.licence)


def _load_cifar10(split: str, folders: _Folders) -> Dataset:
    parts = list(_find_cifar_npz(split, folders) or _find_cifar_batches(split, folders))
    return _image_dataset(
        "cifar10",
        parts,
        catalogue.CIFAR10_NAMES,
        catalogue.CIFAR10_SOURCE,
        catalogue.CIFAR10_LICENCE,
    )


def _find_cifar_npz(split: str, folders: _Folders) -> list[_Part]:
    """Images and labels of ``cifar10_train*.npz`` and ``cifar10_test*.npz``, if all are there."""
    wanted = _chosen(split, "train", "test")
    paths = [next(folders.find("cifar10", f"cifar10_{part}*.npz"), None) for part in wanted]
    found = [path for path in paths if path is not None]
    return [readers.read_cifar_npz(path) for path in found] if len(found) == len(wanted) else []


def _find_cifar_batches(split: str, folders: _Folders) -> list[_Part]:
    """Images and labels of the binary version, unpacked or as the archive."""
    train = [f"data_batch_{number}.bin" for number in range(1, 6)]
    names = [name for part in _chosen(split, train, ["test_batch.bin"]) for name in part]
    for pattern in (names[0], f"cifar-10-batches-bin/{names[0]}"):
        for first in folders.find("cifar10", pattern):
            paths = [first.with_name(name) for name in names]
            return [readers.read_cifar_records(path.read_bytes(), str(path)) for path in paths]
    archive = folders.get("cifar10", catalogue.CIFAR10_ARCHIVE)
    contents = readers.read_tar_members(archive, names)
    return [readers.read_cifar_records(*pair) for pair in zip(contents, names, strict=True)]


def _load_table(name: str) -> Dataset:
    bunch = getattr(sklearn_datasets, f"load_{name}")()
    is_digits = name == "digits"
    return Dataset(
        name,
        (bunch.data / 16).astype(np.float32) if is_digits else bunch.data,
        bunch.target.astype(np.int64),
        _pixel_names((8, 8)) if is_digits else [str(feature) for feature in bunch.feature_names],
        [str(target) for target in bunch.target_names],
        (8, 8) if is_digits else None,
        "UCI Machine Learning Repository, as distributed with scikit-learn",
        "CC BY 4.0",
    )


def _load_pbmc(name: str, folders: _Folders) -> Dataset:
    path = next(folders.find("pbmc4k", "pbmc4k.npz"), None)
    if path is None:
        raise FileNotFoundError(
            folders.missing("pbmc4k", "pbmc4k.npz") + "; this set is not offered for download"
        )
    key, label = ("counts", "gene") if name == "pbmc4k-counts" else ("X_pca50", "PC")
    arrays = readers.read_npz(path, (key, "y"))
    clusters, y = np.unique(arrays["y"], return_inverse=True)
    return Dataset(
        name,
        arrays[key].astype(np.float32),
        y.astype(np.int64),
        [f"{label} {number}" for number in range(1, arrays[key].shape[1] + 1)],
        [f"cluster {cluster}" for cluster in clusters],
        None,
        catalogue.PBMC_SOURCE,
        catalogue.PBMC_LICENCE,
    )


def _chosen(split: str, train: _T, test: _T) -> list[_T]:
    return {"train": [train], "test": [test], "all": [train, test]}[split]


def _check_as_many(path: Path, images: NDArray[Any], labels: NDArray[Any]) -> None:
    if len(images) != len(labels):
        raise ValueError(f"{path} holds {len(images)} images, but there are {len(labels)} labels")


def _image_dataset(
    name: str, parts: list[_Part], target_names: Sequence[str], source: str, licence: str
) -> Dataset:
    shape = parts[0][0].shape[1:]
    X = np.empty((sum(len(images) for images, _ in parts), int(np.prod(shape))), dtype=np.float32)
    np.concatenate([images.reshape(len(images), -1) for images, _ in parts], out=X)
    X /= 255
    y = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    return Dataset(name, X, y, _pixel_names(shape), list(target_names), shape, source, licence)


def _pixel_names(shape: tuple[int, ...]) -> list[str]:
    places = [f"{row},{column}" for row in range(shape[0]) for column in range(shape[1])]
    colors = ("pixel",) if len(shape) == 2 else ("red", "green", "blue")
    return [f"{color} {place}" for place in places for color in colors]
