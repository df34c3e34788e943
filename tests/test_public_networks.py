"""Networks of others, unmodified: exact, the named constants make up b, and the map is one."""

import pytest
import torch

from ptsne.linearize import linearize
from public_networks import Network
from reference_linearize import Replay

FAST = [
    Network("torchvision", "resnet18"),
    Network("torchvision", "mobilenet_v3_small"),
    Network("torchvision", "efficientnet_b0", 32),
    Network("timm", "vit_tiny_patch16_224", options={"img_size": 64}),
    Network("timm", "efficientnet_lite0"),
]
OTHERS = """alexnet vgg16 vgg16_bn vgg19 vgg19_bn resnet50 resnet101 resnet152 densenet121
    mobilenet_v2 mobilenet_v3_large convnext_tiny swin_t shufflenet_v2_x0_5 regnet_y_400mf"""
SLOW = [
    *(Network("torchvision", name) for name in OTHERS.split()),
    Network("torchvision", "googlenet", options={"init_weights": False}),
    Network("torchvision", "vit_b_16", 32, {"image_size": 32}),
    *(Network("timm", name) for name in ("resnet26", "resnet50d", "convmixer_768_32")),
    Network("timm", "deit_tiny_patch16_224", options={"img_size": 64}),
    Network("timm", "mixer_s32_224", options={"img_size": 64}),
    Network("timm", "cait_xxs24_224", options={"img_size": 64}),
    Network("timm", "coat_tiny", options={"img_size": 64}),
    Network("timm", "convit_tiny", options={"img_size": 64}),
]
NETWORKS = [*FAST, *(pytest.param(network, marks=pytest.mark.slow) for network in SLOW)]
OUTPUTS = [0, 7]

GATES = ("softmax", "sigmoid", "hardsigmoid")  # in these networks they only ever multiply
HALVES = ("coat_tiny",)


def name_of(network):
    return f"{network.library}-{network.name}"


@pytest.fixture(scope="module", params=NETWORKS, ids=name_of)
def case(request):
    network = request.param
    return network, network.model().double()


@pytest.fixture(scope="module")
def held(case):
    """W, terms and output of two rows, at two of the outputs."""
    network, model = case
    lin = linearize(model, network.x())
    return lin.weight(OUTPUTS), lin.bias_terms(OUTPUTS), lin.output[:, OUTPUTS], lin


def gap(weight, terms, output, x):
    """``|F - W x - sum of terms|`` against what they are made of; and ``|W x| / |F|``."""
    moved = torch.einsum("nmi,ni->nm", weight.flatten(2), x.flatten(1))
    parts = torch.stack([moved, *terms.values()])
    scale = output.abs() + parts.abs().sum(0)
    return float(((output - parts.sum(0)).abs() / scale).max()), float((moved.abs() / scale).min())


def test_weight_and_named_terms_make_up_the_output(case, held):
    network, model = case
    weight, terms, output, lin = held
    x = network.x()
    torch.testing.assert_close(lin.output, model(x).detach(), rtol=1e-13, atol=1e-13)
    missing, share_of_x = gap(weight, terms, output, x)
    assert missing < 1e-12
    assert share_of_x > 1e-5  # or W could be anything


def test_wx_of_all_outputs_at_once(case, held):
    network, _ = case
    weight, terms, _, lin = held
    moved = torch.einsum("nmi,ni->nm", weight.flatten(2), network.x().flatten(1))
    torch.testing.assert_close(lin.linear_part()[:, OUTPUTS], moved, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(lin.bias(OUTPUTS), sum(terms.values()), rtol=1e-9, atol=1e-11)


def test_network_with_held_gates_follows_the_map_to_other_pictures(case, held):
    network, model = case
    if network.name in HALVES:
        pytest.skip("a product of two functions of x is shared by both, which no replay can hold")
    weight, terms, output, _ = held
    x, other = network.x(), network.x(seed=9)
    with Replay(gates=GATES) as replay:
        model(x)
        replay.hold()
        followed = model(other).detach()[:, OUTPUTS]
    moved = torch.einsum("nmi,ni->nm", weight.flatten(2), other.flatten(1))
    size = (moved.abs() + sum(term.abs() for term in terms.values())).max()
    assert float((followed - moved - sum(terms.values())).abs().max()) < 1e-11 * size
    assert float((followed - model(other).detach()[:, OUTPUTS]).abs().max()) > 1e-3 * size


def test_single_precision(case):
    network, model = case
    x = network.x(1, torch.float32)
    lin = linearize(model.float(), x)
    missing, _ = gap(lin.weight(0), lin.bias_terms(0), lin.output[:, :1], x)
    model.double()
    assert lin.output.dtype == torch.float32
    assert missing < 1e-5
