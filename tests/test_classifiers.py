"""Classifiers: sizes as published, exact maps, and without bias b of the last layer alone."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ptsne import classifiers
from ptsne.classifiers import ScaleNorm2d
from ptsne.classifiers.resnet import BasicBlock, Bottleneck
from ptsne.linearize import linearize

# parameters for ten classes, as the papers' tables or the usual CIFAR versions have them
N_PARAMETERS = {
    "LeNet300100": 266_610,
    "LeNet5": 61_706,
    "vgg16": 14_728_266,
    "vgg19": 20_040_522,
    "resnet18": 11_173_962,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "resnet152": 58_156_618,
    "densenet121": 6_956_298,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
}
# families whose published depths are for slow tests, cut down to one block a stage
SHALLOW = {
    "vgg": partial(classifiers.VGG, (1, 1, 1, 1, 1)),
    "plain vgg": partial(classifiers.VGG, (1, 1, 1, 1, 1), batch_norm=False),
    "densenet": partial(classifiers.DenseNet, (1, 2, 1, 1), growth=8),
    "resnet": partial(classifiers.ResNet, BasicBlock, (1, 1, 1, 1)),
    "deep resnet": partial(classifiers.ResNet, Bottleneck, (1, 1, 1, 1)),
    "normalised alexnet": partial(classifiers.AlexNet, batch_norm=True),
}
SMALL = ("LeNet300100", "LeNet5", "AlexNet", "resnet20", *SHALLOW)
LARGE = ("vgg16", "vgg19", "resnet18", "resnet50", "resnet101", "resnet152", "densenet121")
SMALL_PICTURES = {"LeNet300100": (1, 28, 28), "LeNet5": (1, 28, 28)}


def pictures(name, n):
    shape = SMALL_PICTURES.get(name, (3, 32, 32))
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def build(name, **options):
    return (SHALLOW.get(name) or getattr(classifiers, name))(**options)


def calibrated(name, **options):
    """A network at its start, with statistics and constants that let the input through."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(name, **options)
        for key, parameter in network.named_parameters():
            if key.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)
        norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, ScaleNorm2d))]
        for layer in norms:
            layer.momentum = 1.0
            nn.init.uniform_(layer.weight, 0.5, 1.5)
        if norms:
            with torch.no_grad():
                network.train()(pictures(name, 4))
    return network.eval()


@pytest.mark.parametrize("name", N_PARAMETERS)
def test_as_many_parameters_as_published(name):
    with torch.device("meta"):
        network = getattr(classifiers, name)()
    assert sum(p.numel() for p in network.parameters()) == N_PARAMETERS[name]


def test_every_network_is_tested_here():
    others = {"VGG", "ResNet", "SmallResNet", "DenseNet", "ScaleNorm2d"}
    assert set(classifiers.__all__) - others == {*N_PARAMETERS, "AlexNet"}
    assert {*SMALL, *LARGE, "resnet32", "resnet44", "resnet56"} >= {*N_PARAMETERS}


def assert_exact(name):
    network, x = calibrated(name).double(), pictures(name, 2).double()
    lin = linearize(network, x, memory_budget=2**32)  # both rows at once, as below
    linear, bias = lin.linear_part(), lin.bias()
    scale = linear.abs() + bias.abs()
    assert torch.equal(lin.output, network(x))
    assert lin.output.shape == (2, 10)
    assert ((lin.output - linear - bias).abs() <= 1e-12 * scale).all()
    assert linear.abs().min() > 1e-6  # the input has its say: the check is not vacuous


@pytest.mark.parametrize("name", SMALL)
def test_linear_map_is_exact(name):
    assert_exact(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_linear_map_of_a_large_network_is_exact(name):
    assert_exact(name)


@pytest.mark.parametrize("name", ["AlexNet", "vgg16"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_normalisation_is_an_option(name, batch_norm):
    with torch.device("meta"):
        network = build(name, batch_norm=batch_norm)
    n_norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert n_norms == (sum(isinstance(m, nn.Conv2d) for m in network) if batch_norm else 0)


def assert_bias_free(name):
    network, x = calibrated(name, bias=False).double(), pictures(name, 2).double()
    constants = [key for key, _ in network.named_parameters() if key.endswith("bias")]
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    lin = linearize(network, x)
    terms = {key: term for key, term in lin.bias_terms().items() if term.any()}
    assert list(terms) == constants
    assert len(constants) == 1
    assert torch.equal(lin.bias(), last.bias.expand(2, -1))
    # homogeneous up to that bias: twice the picture, twice the evidence
    torch.testing.assert_close(network(2 * x) - last.bias, 2 * (network(x) - last.bias))


@pytest.mark.parametrize("name", SMALL)
def test_without_bias_b_is_that_of_the_last_layer(name):
    assert_bias_free(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_without_bias_b_of_a_large_network_is_that_of_the_last_layer(name):
    assert_bias_free(name)


def test_with_bias_b_depends_on_the_picture():
    b = linearize(calibrated("LeNet5"), pictures("LeNet5", 2)).bias()
    assert not torch.allclose(b[0], b[1])


def test_scale_norm_divides_by_the_root_mean_square_of_the_batch():
    layer, x = ScaleNorm2d(3, eps=0.0), pictures("vgg16", 4) * 5 + 2
    root = torch.stack([x[:, channel].pow(2).mean().sqrt() for channel in range(3)])
    torch.testing.assert_close(layer(x), x / root[:, None, None])
    torch.testing.assert_close(layer.mean_square, 0.9 + 0.1 * root**2)
    torch.testing.assert_close(layer.eval()(x), x / (0.9 + 0.1 * root**2).sqrt()[:, None, None])


def test_option_a_shortcut_keeps_every_second_pixel_between_zeros():
    block = classifiers.resnet20().layer2[0].shortcut
    x = torch.randn(2, 16, 8, 8)
    y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_lenet5_takes_colour_pictures_of_32_pixels():
    network = classifiers.LeNet5(n_channels=3, image_size=32)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(ValueError, match="image_size must be 28 or 32; got 64"):
        classifiers.LeNet5(image_size=64)


@pytest.mark.parametrize("name", ["LeNet5", "resnet20"])
@pytest.mark.parametrize("bias", [True, False])
def test_it_learns(name, bias):
    """Ten steps on one batch make it more probable."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(classifiers, name)(bias=bias)
    x, y = pictures(name, 16), torch.arange(16) % 10
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(11):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
