"""Writing model files: whole or not at all, whatever the disk and the neighbours do."""

import errno
import os
import sys
import threading

import numpy as np
import pytest
from sklearn.datasets import load_iris

import ptsne
from ptsne import ParametricTSNE
from ptsne.persistence import file as model_file

X = load_iris().data


@pytest.fixture(scope="module")
def map_():
    return ParametricTSNE(perplexity=10, max_iter=20, random_state=0, n_landmarks=8).fit(X)


@pytest.fixture
def old(map_, tmp_path):
    """A model file that must survive, and its bytes."""
    path = tmp_path / "model"
    map_.save(path)
    return path, path.read_bytes()


def remains(old):
    path, data = old
    return path.read_bytes() == data and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EFBIG, "ulimit"),
        (errno.EROFS, "where you have the right"),
        (errno.EIO, "write elsewhere"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file(map_, old, monkeypatch, number, advice, step):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (model_file.Path, "replace")), fail)
    with pytest.raises(OSError, match=f"(?s){os.strerror(number)}.*unchanged.*{advice}.*model"):
        map_.save(old[0])
    monkeypatch.undo()
    assert remains(old)


def test_an_interrupted_save_leaves_the_old_file(map_, old, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        map_.save(old[0])
    assert remains(old)


def test_a_full_disk_leaves_the_old_file(map_, old):
    resource = pytest.importorskip("resource", reason="no limits of file sizes")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"not written.*ulimit -f"):
            map_.save(old[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert remains(old)


def test_places_that_cannot_be_written_are_named(map_, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"make the folder first.*no folder"):
        map_.save(tmp_path / "no folder" / "model")
    with pytest.raises(NotADirectoryError, match="part of the path is a file"):
        map_.save(tmp_path / "file" / "model")
    with pytest.raises(IsADirectoryError, match="a folder or a device"):
        map_.save(tmp_path / "folder")
    with pytest.raises(IsADirectoryError, match="a folder or a device"):
        map_.save(os.devnull)


def test_a_read_only_file_is_not_replaced(map_, old, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"read-only.*right"):
        map_.save(old[0])
    assert remains(old)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do it all")
def test_rights_are_asked_for(map_, old):
    old[0].chmod(0o200)
    with pytest.raises(PermissionError, match="may not be read"):
        ptsne.load(old[0])
    old[0].chmod(0o600)
    old[0].parent.chmod(0o500)
    with pytest.raises(PermissionError, match="right"):
        map_.save(old[0])
    old[0].parent.chmod(0o700)
    assert remains(old)


def test_an_unreadable_file_is_named(old, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(model_file.Path, "open", refuse)
    with pytest.raises(PermissionError, match="model may not be read; ask its owner"):
        ptsne.load(old[0])


@pytest.mark.skipif(sys.platform == "win32", reason="other rights, and links need some")
def test_links_are_followed_and_rights_kept(map_, old, tmp_path):
    old[0].chmod(0o600)
    (tmp_path / "link").symlink_to("model")
    map_.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert old[0].stat().st_mode & 0o777 == 0o600
    assert old[0].read_bytes() == old[1]


def test_saves_at_once_leave_one_whole_file(map_, tmp_path):
    path = tmp_path / "model"
    other = ParametricTSNE(perplexity=10, max_iter=20, random_state=1, n_landmarks=4).fit(X)
    valid = {model.embedding_.tobytes() for model in (map_, other)}
    map_.save(path)
    wrong, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            if ptsne.load(path).embedding_.tobytes() not in valid:
                wrong.append(path)

    savers = [
        threading.Thread(target=lambda m=m: [m.save(path) for _ in range(15)])
        for m in (map_, other, map_)
    ]
    reader = threading.Thread(target=look)
    for thread in (reader, *savers):
        thread.start()
    for thread in savers:
        thread.join()
    stop.set()
    reader.join()
    assert not wrong
    assert ptsne.load(path).embedding_.tobytes() in valid
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_loaded_map_does_not_depend_on_its_file(old):
    again = ptsne.load(old[0])
    places = again.transform(X)
    old[0].write_bytes(b"")
    np.testing.assert_array_equal(again.transform(X), places)
