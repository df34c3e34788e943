"""A fit that was cut off goes on, and ends in the same bits."""

import copy
import errno
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsTransformer
from torch import nn

import killed_fits
import ptsne
from ptsne import ParametricTSNE
from ptsne.persistence import checkpoint as checkpoint_file
from ptsne.training import Checkpoint

X = load_iris().data

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


class Fits:
    """The process of `killed_fits`."""

    def __init__(self):
        script = Path(killed_fits.__file__)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, script], **pipes)
        self.process.stdout.readline()  # ready

    def __call__(self, case, checkpoint, out, **options):
        """Whether the fit ended before it was killed."""
        request = {"case": case, "checkpoint": checkpoint and str(checkpoint), "out": str(out)}
        request |= {"kill_after": None, "seconds": 0.02} | options
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def fits():
    fits = Fits()
    yield fits
    fits.process.stdin.close()
    fits.process.wait()
    fits.process.stdout.close()


def assert_same(first, second):
    first, second = np.load(first), np.load(second)
    for name in ("embedding", "reconstruction", "history"):
        assert np.array_equal(first[name], second[name]), name


def killed_and_whole(fits, case, n_kills, folder, **options):
    checkpoint, whole, again = (folder / name for name in ("fit.ckpt", "whole.npz", "again.npz"))
    start = perf_counter()
    fits(case, None, whole)
    seconds = perf_counter() - start
    rng = np.random.default_rng()
    n_left = n_kills
    while n_left:
        n_left -= not fits(case, checkpoint, again, kill_after=rng.uniform(0, seconds), **options)
    fits(case, checkpoint, again, **options)
    assert_same(whole, again)
    assert sorted(path.name for path in folder.iterdir()) == ["again.npz", "whole.npz"]


@FORKS
@pytest.mark.parametrize("case", killed_fits.CASES)
def test_a_killed_fit_ends_in_the_same_bits(fits, case, tmp_path):
    killed_and_whole(fits, case, 6 if case == "atlas" else 2, tmp_path)


@FORKS
@pytest.mark.slow
@pytest.mark.parametrize("case", killed_fits.CASES)
def test_twenty_kills_each(fits, case, tmp_path):
    killed_and_whole(fits, case, 20, tmp_path, seconds=0)


# ---- in this process: an error of a callback cuts a fit off, and leaves its file


class Cut(Exception):
    pass


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.ckpt"


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(Checkpoint, "seconds", 0.0)
    monkeypatch.setattr(Checkpoint, "share", math.inf)


def quick(**options):
    usual = {"perplexity": 10, "max_iter": 40, "random_state": 0}
    return ParametricTSNE(**usual | options)


def cut_at(n, phase="places", error=Cut):
    """A callback that raises at a record."""

    def callback(record):
        if record.phase == phase and record.iteration >= n:
            raise error

    return callback


def begun(path, X=X, n=10, phase="places", **options):
    """A fit that is cut off; its file stays."""
    fit_options = {name: options.pop(name) for name in ("y", "neighbors") if name in options}
    map_ = quick(checkpoint=path, callbacks=cut_at(n, phase), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "seconds", 0.0)
        patch.setattr(Checkpoint, "share", math.inf)
        with pytest.raises(Cut):
            map_.fit(X, **fit_options)
    assert path.exists()


@pytest.fixture(scope="module")
def whole():
    return quick().fit(X)


@pytest.mark.parametrize(("phase", "n"), [("places", 14), ("fine-tuning", 12), ("decoder", 50)])
def test_only_new_iterations_are_heard_of(whole, path, phase, n):
    begun(path, phase=phase, n=n)
    heard = []
    map_ = quick(checkpoint=str(path), callbacks=heard.append).fit(X)
    assert np.array_equal(map_.embedding_, whole.embedding_)
    assert not path.exists()
    assert heard[0].phase == phase
    assert 0 < len(heard) < len(map_.history_)
    assert [(r["phase"], r["iteration"]) for r in map_.history_] == [
        (r["phase"], r["iteration"]) for r in whole.history_
    ]
    seconds = [record["seconds"] for record in map_.history_]
    assert seconds == sorted(seconds)
    assert map_.n_iter_ == whole.n_iter_


def test_a_network_that_learns_a_map_goes_on(path):
    whole = quick(projection=(8,)).fit(X)
    begun(path, phase="fine-tuning", n=20, projection=(8,))
    heard = []
    again = quick(checkpoint=path, projection=(8,), callbacks=heard.append).fit(X)
    assert np.array_equal(again.embedding_, whole.embedding_)
    assert heard[0].phase == "fine-tuning"
    assert 20 <= heard[0].iteration < heard[0].n_iterations


def test_writing_changes_no_bit(whole, path, every_step):
    map_ = quick(checkpoint=path).fit(X)
    assert np.array_equal(map_.embedding_, whole.embedding_)
    assert list(path.parent.iterdir()) == []


@pytest.mark.filterwarnings("ignore:training was interrupted")
def test_after_ctrl_c_fit_goes_on(whole, path, every_step):
    stopped = quick(checkpoint=path, callbacks=cut_at(10, "fine-tuning", KeyboardInterrupt))
    assert stopped.fit(X).embedding_.shape == (150, 2)
    assert stopped.n_iter_ < whole.n_iter_
    assert path.exists()
    stopped.callbacks = None
    assert np.array_equal(stopped.fit(X).embedding_, whole.embedding_)
    assert not path.exists()


def test_a_fit_that_a_callback_ends_is_complete(path):
    quick(checkpoint=path, callbacks=lambda record: record.phase == "fine-tuning").fit(X)
    assert list(path.parent.iterdir()) == []


def test_an_early_end_leaves_nothing_in_the_way(whole, path):
    with pytest.raises(ValueError, match="encoder widths"):
        quick(checkpoint=path, encoder=(0,)).fit(X)
    assert not path.exists()
    with pytest.raises(ValueError, match="does not accept rows"):
        quick(checkpoint=path, encoder=nn.Linear(3, 2)).fit(X)
    assert np.array_equal(quick(checkpoint=path).fit(X).embedding_, whole.embedding_)


# ---- seeds


def test_a_seed_that_was_drawn_is_used_again(path):
    begun(path, n=14, random_state=None)
    copies = [shutil.copy(f"{path}{end}", f"{path}.copy{end}") for end in ("", ".neighbors")]
    maps = [quick(checkpoint=name, random_state=None).fit(X) for name in (path, copies[0])]
    assert np.array_equal(maps[0].embedding_, maps[1].embedding_)
    assert not np.array_equal(maps[0].embedding_, quick(random_state=None).fit(X).embedding_)


def test_a_random_state_stands_where_it_stood(path):
    options = {"y": load_iris().target, "target_weight": 0.5}
    y = options.pop("y")
    whole = quick(random_state=np.random.RandomState(3), **options).fit(X, y)
    begun(path, y=y, random_state=np.random.RandomState(3), **options)
    again = quick(checkpoint=path, random_state=np.random.RandomState(4), **options).fit(X, y)
    assert np.array_equal(again.embedding_, whole.embedding_)


def test_global_random_numbers_are_left_alone(path):
    begun(path, n=12, phase="fine-tuning")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    quick(checkpoint=path).fit(X)
    assert torch.equal(torch.get_rng_state(), before)


# ---- whose file it is


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ({"perplexity": 12}, X, "perplexity was 10 and is 12"),
        ({"n_landmarks": 9}, X, "n_landmarks was 'auto' and is 9"),
        ({"random_state": 1}, X, "random_state was 0 and is 1"),
        ({"encoder": nn.Linear(4, 2)}, X, "encoder was 'autoencoder' and is 'Linear'"),
        ({}, X[:149], r"the shape of X was \[150, 4\] and is \[149, 4\]"),
        ({}, X.astype(np.float32), "the dtype of X was 'float64' and is 'float32'"),
        ({}, X + 1e-9, "the values of X changed"),
        ({}, sparse.csr_array(X), "the values of X changed"),
        ({"target_weight": 0.5}, X, "the classes changed"),
    ],
)
def test_another_fit_is_refused(path, options, rows, message):
    begun(path)
    data = path.read_bytes()
    y = load_iris().target if "target_weight" in options else None
    with pytest.raises(ValueError, match=f"{message}.*delete it to fit afresh, or name another"):
        quick(checkpoint=path, **options).fit(rows, y)
    assert path.read_bytes() == data


def test_another_environment_is_refused(path, monkeypatch):
    begun(path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        with pytest.raises(ValueError, match=r"torch.get_num_threads\(\) was . and is 77"):
            quick(checkpoint=path).fit(X)
    monkeypatch.setattr("ptsne.persistence.fingerprint.version_of", lambda name: f"{name} 0")
    with pytest.raises(ValueError, match=r"the version of torch was .* and is 'torch 0'"):
        quick(checkpoint=path).fit(X)


def test_other_callbacks_verbosity_and_names_are_the_same_fit(whole, path):
    begun(path)
    link = path.with_name("link")
    link.symlink_to(path)
    map_ = quick(checkpoint=link, verbose=1, device="cpu").fit(X)
    assert np.array_equal(map_.embedding_, whole.embedding_)
    assert not path.exists()


def test_the_users_graph_belongs_to_the_fit(path):
    def graph(k):
        return KNeighborsTransformer(n_neighbors=k, mode="distance").fit_transform(X)

    whole = quick().fit(X, neighbors=graph(30))
    begun(path, neighbors=graph(30))
    for other in (None, graph(31)):
        with pytest.raises(ValueError, match="the neighbors given changed"):
            quick(checkpoint=path).fit(X, neighbors=other)
    map_ = quick(checkpoint=path).fit(X, neighbors=graph(30))
    assert np.array_equal(map_.embedding_, whole.embedding_)


def module(seed, *, is_fixed=False):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    return network.requires_grad_(not is_fixed)


@pytest.mark.parametrize("role", ["encoder", "projection"])
def test_a_module_goes_on_from_the_weights_it_began_with(path, role):
    def network(seed):
        return module(seed) if role == "encoder" else nn.Sequential(module(seed), nn.Linear(3, 2))

    whole = quick(**{role: network(0)}).fit(X)
    begun(path, **{role: network(0)})
    with pytest.warns(UserWarning, match="start with other weights.*goes on from those in"):
        map_ = quick(checkpoint=path, **{role: network(1)}).fit(X)
    assert np.array_equal(map_.embedding_, whole.embedding_)


def test_fixed_weights_belong_to_the_fit(path):
    begun(path, encoder=module(0, is_fixed=True))
    with pytest.raises(ValueError, match="the fixed weights of encoder changed"):
        quick(checkpoint=path, encoder=module(1, is_fixed=True)).fit(X)
    quick(checkpoint=path, encoder=module(0, is_fixed=True)).fit(X)


def test_a_module_that_cannot_be_kept_is_refused_at_once(path):
    class Strange(nn.Linear):
        def get_extra_state(self):
            return object()

        def set_extra_state(self, state):
            pass

    with pytest.raises(ValueError, match=r"_extra_state.*fit without checkpoint"):
        quick(checkpoint=path, encoder=Strange(4, 3)).fit(X)


# ---- files


def test_damaged_files_are_refused_and_left(path):
    begun(path)
    data = path.read_bytes()
    damaged = [
        data[: len(data) // 2],
        data[:-9] + bytes(9 * [7]),
        b"",
        b"a,b,c\n1,2,3\n",
        data[:20],
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"fit\.ckpt.*damaged.*delete it to fit afresh"):
            quick(checkpoint=path).fit(X)
        assert path.read_bytes() == content


def test_maps_and_checkpoints_are_told_apart(whole, path):
    whole.save(path)
    with pytest.raises(ValueError, match="is a saved map, not a checkpoint; name another file"):
        quick(checkpoint=path).fit(X)
    assert np.array_equal(ptsne.load(path).embedding_, whole.embedding_)
    path.unlink()
    begun(path)
    with pytest.raises(ValueError, match="checkpoint of a fit that is not complete"):
        ptsne.load(path)


@pytest.mark.parametrize("change", ["missing", "other", "damaged"])
def test_the_graph_is_needed(path, change):
    begun(path)
    graph = Path(f"{path}.neighbors")
    data = graph.read_bytes()
    if change == "missing":
        graph.unlink()
    elif change == "damaged":
        graph.write_bytes(data[:-1])
    else:
        begun(path.with_name("other"), X=X[:100])
        path.with_name("other.neighbors").replace(graph)
    with pytest.raises(ValueError, match=r"fit\.ckpt\.neighbors.*"):
        quick(checkpoint=path).fit(X)
    graph.write_bytes(data)
    quick(checkpoint=path).fit(X)
    assert not graph.exists()


def test_a_graph_without_its_checkpoint_is_replaced_and_no_other_file(path):
    begun(path, X=X[:100])
    path.unlink()
    quick(checkpoint=path).fit(X)
    other = Path(f"{path}.neighbors")
    other.write_text("a list of my neighbours")
    with pytest.raises(FileExistsError, match="is in the way"):
        quick(checkpoint=path).fit(X)
    assert other.read_text() == "a list of my neighbours"


def test_what_a_killed_process_was_writing_is_cleared_away(path):
    part = path.with_name(".fit.ckpt.0123456789abcdef.ptsne-part")
    part.write_bytes(b"half")
    quick(checkpoint=path).fit(X)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("place", ["file/fit.ckpt", "no folder/fit.ckpt", "folder"])
def test_a_place_that_cannot_be_written_is_known_at_once(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    heard = []
    with pytest.raises(OSError, match=f"the checkpoint was not written.*{place}"):
        quick(checkpoint=tmp_path / place, callbacks=heard.append).fit(X)
    assert heard == []


def test_a_read_only_folder_is_known_at_once(path, monkeypatch):
    begun(path)
    data = path.read_bytes()
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))

    def refuse(*_):
        raise read_only

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=r"Read-only.*unchanged; write where you have the right"):
        quick(checkpoint=path).fit(X)
    assert path.read_bytes() == data


@pytest.mark.parametrize("target", ["fit.ckpt", "fit.ckpt.neighbors"])
def test_a_full_disk_costs_no_work(whole, path, monkeypatch, every_step, target):
    """After the first writing the disk is full: the fit ends, and what was kept stays."""
    write = checkpoint_file.write
    kept = {}

    def full(place, contents, **options):
        if Path(place).name == target and contents.header.get("state", 1) is not None:
            kept.setdefault("data", path.read_bytes())
            assert path.read_bytes() == kept["data"]
            monkeypatch.setattr(os, "fsync", no_space)
        write(place, contents, **options)

    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_file, "write", full)
    with pytest.warns(RuntimeWarning, match="goes on without a new checkpoint.*free some space"):
        map_ = quick(checkpoint=path).fit(X)
    assert np.array_equal(map_.embedding_, whole.embedding_)
    assert list(path.parent.iterdir()) == []


def test_a_limit_of_file_sizes_costs_no_work(whole, path, every_step):
    resource = pytest.importorskip("resource", reason="no limits of file sizes")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    begun(path)
    data = path.read_bytes()
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(record):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        assert record.phase != "decoder" or path.stat().st_size >= len(data)

    try:
        with pytest.warns(RuntimeWarning, match="ulimit -f"):
            map_ = quick(checkpoint=path, callbacks=limit).fit(X)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert np.array_equal(map_.embedding_, whole.embedding_)


def test_a_checkpoint_that_cannot_be_deleted_is_said(path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(checkpoint_file.CheckpointFile, "_remove_parts", lambda _: None)
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda p, **o: refuse() if p == path else unlink(p, **o))
    with pytest.warns(RuntimeWarning, match="complete, but its checkpoint could not be deleted"):
        quick(checkpoint=path).fit(X)


def test_large_states_are_written_less_often(path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "seconds", 0.0)
    monkeypatch.setattr(Checkpoint, "share", 1e-9)
    writes = []
    write = checkpoint_file.write

    def counted(place, contents, **options):
        writes.append(Path(place).name)
        write(place, contents, **options)

    monkeypatch.setattr(checkpoint_file, "write", counted)
    quick(checkpoint=path).fit(X)
    assert writes == ["fit.ckpt", "fit.ckpt.neighbors", "fit.ckpt"]  # the last at the first step


# ---- parts of it


class Memory:
    """A store without a file."""

    def __init__(self):
        self.state = None

    def read(self):
        return self.state

    def write(self, state):
        self.state = copy.deepcopy(state)


def test_a_result_that_was_kept_is_the_same_whatever_became_of_it(every_step):
    store, numbers = Memory(), torch.arange(3.0)
    checkpoint = Checkpoint(store)
    kept = checkpoint.once("numbers", lambda: {"pair": (numbers, "a"), "list": [1, None]})
    numbers.zero_()
    kept["pair"][0].zero_()
    assert list(checkpoint.steps("phase", 1, nn.Linear(2, 2))) == [0]
    again = Checkpoint(store).once("numbers", pytest.fail)
    assert again == {"pair": [pytest.approx([0, 1, 2]), "a"], "list": [1, None]}


def test_a_file_whose_phases_are_others_is_refused(every_step):
    store = Memory()
    steps = Checkpoint(store).steps("phase", 5, nn.Linear(2, 2))
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(ValueError, match=r"in phase '1 phase'.*comes to '1 other' instead; delete"):
        list(Checkpoint(store).steps("other", 5, nn.Linear(2, 2)))


# ---- the parameter


def test_the_parameter_is_copied_and_pickled_but_not_saved(path):
    map_ = quick(checkpoint=path).fit(X)
    assert clone(map_).checkpoint == path
    assert pickle.loads(pickle.dumps(map_)).checkpoint == path
    map_.save(path.with_name("model"))
    assert ptsne.load(path.with_name("model")).checkpoint is None


def test_a_checkpoint_is_a_path():
    with pytest.raises(ValueError, match="'checkpoint' parameter"):
        quick(checkpoint=3).fit(X)
