"""The split ``F = W x + b``: exact, streamed, and counted like a loop over rows counts."""

import dataclasses
import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import paper
from ptsne import Ensemble, datasets
from ptsne.classifiers import LeNet5, LeNet300100, resnet20
from ptsne.decomposition import label_flip_rate, split_prediction
from ptsne.linearize import UnsupportedOperation, linearize
from public_networks import torchvision
from test_examples import ROOT, learned, percentages


def rows(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)).double()


def seeded(build, seed=0):
    """A network in float64 with biases that matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def mlp(activation=nn.ReLU, n_out=4):
    return nn.Sequential(
        nn.Linear(6, 12), activation(), nn.Linear(12, 8), activation(), nn.Linear(8, n_out)
    )


MLP = seeded(mlp)
X = rows(50, 6)
Y = torch.arange(50) % 4


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (mlp, (6,)),
        (lambda: mlp(nn.GELU), (6,)),
        (LeNet300100, (1, 28, 28)),
        (LeNet5, (1, 28, 28)),
        (resnet20, (3, 32, 32)),
    ],
    ids=["mlp", "gelu", "LeNet300100", "LeNet5", "resnet20"],
)
def test_parts_are_those_of_the_full_map(build, shape):
    model, x = seeded(build), rows(5, *shape)
    parts = split_prediction(model, x, batch_size=2)
    W = linearize(model, x).weight()
    wx = (W * x[:, None]).flatten(2).sum(2)
    scale = (W * x[:, None]).flatten(2).abs().sum(2) + parts.b.abs()
    assert ((parts.wx - wx).abs() <= 1e-12 * scale).all()
    assert ((parts.output - parts.wx - parts.b).abs() <= 1e-12 * scale).all()
    torch.testing.assert_close(parts.output, model(x).detach(), rtol=1e-12, atol=1e-12)


def test_tangent_splits_smooth_networks_otherwise():
    model = seeded(lambda: mlp(nn.GELU))
    secant, tangent = (split_prediction(model, X, activation=a) for a in ("secant", "tangent"))
    jacobian = torch.func.vmap(torch.func.jacrev(model))(X)
    expected = (jacobian * X[:, None]).sum(2).detach()
    torch.testing.assert_close(tangent.wx, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(secant.wx, tangent.wx)


def looped_rates(model, X, y):
    """Slow twin: one row at a time, W formed."""
    hits = np.zeros(5)
    for x, label in zip(X, y, strict=True):
        lin = linearize(model, x[None])
        W, b, output = lin.weight()[0], lin.bias()[0], lin.output[0]
        f, wx, b = (int(t.argmax()) for t in (output, (W * x).flatten(1).sum(1), b))
        hits += [f == label, wx == label, b == label, wx != f, b != f]
    return (hits / len(X)).tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 50, 256])
def test_rates_are_those_of_a_loop(batch_size):
    rates = label_flip_rate(MLP, X, Y, batch_size=batch_size)
    assert list(dataclasses.astuple(rates)) == [*looped_rates(MLP, X, Y), 50]
    assert 0 < rates.flip_rate_wx < 1
    assert 0 < rates.flip_rate_b < 1


def loader(*tensors):
    dataset = TensorDataset(*tensors)
    return DataLoader(dataset, batch_size=8)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda folder: (X.numpy(), Y.numpy()),
        lambda folder: (X.float(), Y.tolist()),
        lambda folder: (memory_map(folder), Y.to(torch.uint8)),
        lambda folder: (loader(X, Y),),
    ],
    ids=["numpy", "float32", "memmap", "DataLoader"],
)
def test_rows_come_in_many_kinds(arguments, tmp_path):
    assert label_flip_rate(MLP, *arguments(tmp_path)) == label_flip_rate(MLP, X, Y)


def memory_map(folder):
    np.save(folder / "X.npy", X.numpy())
    return np.load(folder / "X.npy", mmap_mode="r")


@pytest.mark.parametrize("make", [lambda: loader(X), lambda: loader(X, Y), X.numpy])
def test_split_takes_the_same_kinds(make):
    parts, expected = split_prediction(MLP, make()), split_prediction(MLP, X)
    torch.testing.assert_close(parts.wx, expected.wx, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.b, expected.b, rtol=1e-12, atol=1e-12)


def test_a_sum_of_networks_splits_into_the_sum_of_their_parts():
    shares = (0.5, 0.3, 0.2)
    members = [seeded(mlp, seed) for seed in range(3)]
    whole = split_prediction(Ensemble(members, shares), X)
    parts = [split_prediction(member, X) for member in members]
    for name in ("wx", "b", "output"):
        expected = sum(a * getattr(p, name) for a, p in zip(shares, parts, strict=True))
        torch.testing.assert_close(getattr(whole, name), expected, rtol=1e-12, atol=1e-12)


def test_a_chain_of_networks_splits_into_the_product_of_their_maps():
    first, second = (
        seeded(lambda: mlp(n_out=5)),
        seeded(lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), 1),
    )
    whole = split_prediction(nn.Sequential(first, second).eval(), X)
    z = split_prediction(first, X)
    lin = linearize(second, z.output)
    W = lin.weight()  # (N, 3, 5)
    expected = (W @ z.wx[:, :, None])[:, :, 0], (W @ z.b[:, :, None])[:, :, 0] + lin.bias()
    torch.testing.assert_close(whole.wx, expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.b, expected[1], rtol=1e-12, atol=1e-12)


def test_normalising_inside_moves_the_shift_into_b():
    """The same predictions, another split: what is subtracted from the input belongs to b."""

    class Shifted(nn.Module):
        def forward(self, x):
            return MLP((x - 0.5) / 2)

    outside, inside = split_prediction(MLP, (X - 0.5) / 2), split_prediction(Shifted().eval(), X)
    W = linearize(MLP, (X - 0.5) / 2).weight()
    torch.testing.assert_close(outside.output, inside.output)
    torch.testing.assert_close(inside.b - outside.b, -0.25 * W.sum(2), rtol=1e-10, atol=1e-12)


def test_a_bias_free_network_keeps_every_label_without_b():
    model = LeNet300100(bias=False).double().eval()
    nn.init.zeros_(model.fc3.bias)
    rates = label_flip_rate(model, rows(20, 784), torch.zeros(20, dtype=torch.int64))
    assert rates.flip_rate_wx == 0
    assert rates.accuracy == rates.accuracy_wx


def test_model_and_random_state_stay_as_they_were():
    model, state = seeded(LeNet5), torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = rows(3, 1, 28, 28).float()
    split_prediction(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert x.dtype == torch.float32


def test_bar_counts_rows(capsys):
    label_flip_rate(MLP, X, Y, batch_size=20, progress=True)
    assert "50/50" in capsys.readouterr().err
    label_flip_rate(MLP, X, Y)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, Y[:-1]), r"y must be 50 whole numbers.*got shape \(49,\)"),
        ((X, Y.double()), r"whole numbers.*float64"),
        ((X,), r"y must be 50 whole numbers.*got shape \(0,\)"),
        ((X[:0], Y[:0]), "X has no rows"),
        ((loader(X, Y), Y), "brings its own labels"),
        ((loader(X),), "must give .rows, classes.; it gives rows alone"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        label_flip_rate(MLP, *arguments)


def test_no_rows_and_no_batches_are_refused():
    with pytest.raises(ValueError, match="X has no rows"):
        split_prediction(MLP, X[:0])
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        split_prediction(MLP, X, batch_size=0)


def test_one_logit_is_refused():
    with pytest.raises(ValueError, match=r"logits of shape \(N, classes\).*gives \(50, 1\)"):
        label_flip_rate(seeded(lambda: mlp(n_out=1)), X, Y)


def test_training_mode_is_refused():
    with pytest.raises(UnsupportedOperation, match="training mode"):
        split_prediction(nn.Sequential(nn.Linear(6, 2)), X)


# ---- the example, its benchmark and its page ----


@pytest.fixture(scope="module")
def example():
    path = ROOT / "examples" / "label_flip_rate.py"
    spec = importlib.util.spec_from_file_location("label_flip_rate", path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def few_pictures(tmp_path, monkeypatch):
    """A CIFAR-10 of 40 and 20 pictures, and a cache of its own."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 20)):
        images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / f"cifar10_{split}.npz", X=images, y=np.arange(n, dtype=np.uint8) % 10)
    monkeypatch.setenv("PTSNE_DATA", str(tmp_path))
    return tmp_path


def test_interrupted_training_goes_on_to_the_same_network(example, few_pictures, monkeypatch):
    recipe = example.Recipe("cifar10", "resnet20", "standard", epochs=3, batch_size=20)
    whole = example.trained_network(recipe, cache=few_pictures / "whole")

    train_epoch = example.train_epoch

    def interrupted(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(example, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        example.trained_network(recipe, cache=few_pictures / "parts")
    monkeypatch.setattr(example, "train_epoch", train_epoch)
    parts = example.trained_network(recipe, cache=few_pictures / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name

    def never(*arguments):
        raise AssertionError("what is finished must not be trained again")

    monkeypatch.setattr(example, "train_epoch", never)
    again = example.trained_network(recipe, cache=few_pictures / "parts")
    assert torch.equal(again.linear.weight, whole.linear.weight)


def test_study_of_the_example(example, few_pictures, monkeypatch, capsys):
    words = "--dataset cifar10 --model resnet20 --epochs 1 --device cpu --cache x --output o.json"
    monkeypatch.chdir(few_pictures)
    monkeypatch.setattr(sys, "argv", ["label_flip_rate.py", *words.split()])
    example.main()
    assert "Without b, resnet20 changes its mind on" in capsys.readouterr().out
    rows = json.loads((few_pictures / "o.json").read_text())["rows"]
    assert [row["input"] for row in rows] == list(example.INPUTS.values())
    standard, inside = rows[1:]
    assert standard["accuracy"] == inside["accuracy"]  # one network
    assert all(row["n"] == 20 for row in rows)


def test_imagenet_folder_goes_through_a_network_of_torchvision(example, tmp_path, monkeypatch):
    get_model = torchvision()
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            picture = Image.fromarray(rng.integers(0, 256, (80, 60, 3), dtype=np.uint8))
            picture.save(tmp_path / kind / f"{i}.png")
    untrained = get_model("resnet18", weights=None)  # the trained weights are a download
    monkeypatch.setattr("torchvision.models.get_model", lambda name, weights: untrained)
    (row,) = example.imagenet_study("resnet18", tmp_path, rows=4, device="cpu")
    assert row["n"] == 4
    assert 0 <= row["flip_rate_wx"] <= 1


def test_augmentation_moves_and_flips(example):
    x = torch.arange(1.0, 3 * 6 * 5 + 1).reshape(1, 3, 6, 5).expand(200, -1, -1, -1)
    moved = example.augmented(x, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x[0], (4, 4, 4, 4))
    windows = [padded[:, i : i + 6, j : j + 5] for i in range(9) for j in range(9)]
    windows += [window.flip(2) for window in windows]
    kinds = {next(k for k, w in enumerate(windows) if torch.equal(w, m)) for m in moved}
    assert len(kinds) > 80
    assert min(kinds) < 81 <= max(kinds)


def test_page_has_the_numbers_of_the_results():
    page = paper.PAGE.read_text("utf-8")
    assert page == paper.filled(page, paper.stored_results())


@pytest.mark.parametrize("name", ["paper-mnist", "paper-cifar10"])
def test_results_have_the_pattern_of_the_paper(name):
    rows = paper.stored_results()[name]["rows"]
    for row in rows:
        is_small = row["dataset"] == "mnist"
        if is_small and row["input"] != "0 to 1, mean/std inside":
            assert row["flip_rate_wx"] <= 0.02
            assert row["flip_rate_b"] >= 0.60
        if row["model"].startswith("ResNet"):
            assert row["accuracy_b"] > 0.75 > 0.4 > row["accuracy_wx"]


@pytest.fixture
def mnist():
    try:
        datasets.load("mnist", split="all", download=False)
    except FileNotFoundError:
        pytest.skip("the MNIST files are not on this machine")


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("mnist")
def test_pictures_of_the_study(tmp_path):
    sentence = learned("plot_wx_rows.py", tmp_path)
    assert sentence.startswith("The pixels alone name 10 of the 10 digits")
    sentence = learned("plot_neuron_maps.py", tmp_path)
    assert sentence.endswith("See neuron-maps.png.")


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("mnist")
def test_lenets_decide_by_what_the_input_multiplies(tmp_path, example, monkeypatch, capsys):
    words = "--model LeNet300100 --epochs 3 --device cpu --cache cache"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["label_flip_rate.py", *words.split()])
    example.main()
    wx, b = percentages(capsys.readouterr().out.splitlines()[-1])
    assert wx < 5
    assert b > 60
