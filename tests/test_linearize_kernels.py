"""Kernels of the first convolution: the same numbers, and torch's flag as it was."""

import pytest
import torch
from torch import nn

from ptsne.linearize import linearize
from ptsne.linearize.running import exact_arithmetic


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.Conv2d(6, 4, 3)).eval()


def is_on():
    return torch.backends.mkldnn.enabled


def test_w_agrees_with_the_plain_gradient(network):
    x = torch.randn(3, 1, 12, 12)
    W = linearize(network, x).weight([0, 17])
    jac = torch.func.vmap(torch.func.jacrev(lambda row: network(row[None])[0].flatten()))(x)
    torch.testing.assert_close(W, jac[:, [0, 17]], atol=1e-6, rtol=1e-5)


def test_only_convolutions_of_few_channels_go_without_onednn(network):
    seen = []
    lin = linearize(network, torch.randn(2, 1, 12, 12))
    root = lin._graph.root.node
    root.register_prehook(lambda *_: seen.append(is_on()))
    first = root.next_functions[0][0].next_functions[0][0]
    first.register_hook(lambda *_: seen.append(is_on()))
    lin.weight(0)
    assert seen[0] is True
    assert is_on()


def test_a_pass_that_fails_leaves_the_flag_as_it_was(network):
    lin = linearize(network, torch.randn(2, 1, 12, 12))

    def fail(*_):
        assert not is_on()
        raise RuntimeError("out of memory")

    lin._graph.root.node.next_functions[0][0].next_functions[0][0].register_prehook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        lin.weight(0)
    assert is_on()


@pytest.fixture
def tf32():
    """Whether products and convolutions may be rounded; put back at the end."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    yield flags
    for flag, value in zip(flags, before, strict=True):
        flag.allow_tf32 = value


HAS_PRECISIONS = hasattr(torch.backends.cuda.matmul, "fp32_precision")  # since torch 2.9


def rounded(flags):
    """Which products may be rounded."""
    if not HAS_PRECISIONS:
        return [flag.allow_tf32 for flag in flags]
    places = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    return [place.fp32_precision == "tf32" for place in places]


@pytest.mark.parametrize("is_allowed", [True, False])
def test_products_on_a_gpu_are_not_rounded_to_tf32(tf32, is_allowed):
    tf32[0].allow_tf32, tf32[1].allow_tf32 = is_allowed, not is_allowed
    with exact_arithmetic(torch.device("cuda")):
        assert not any(rounded(tf32))
    assert [flag.allow_tf32 for flag in tf32] == [is_allowed, not is_allowed]


@pytest.mark.skipif(not HAS_PRECISIONS, reason="this torch has flags only")
def test_precisions_that_are_set_without_the_flags(tf32):
    backends = torch.backends
    backends.cuda.matmul.fp32_precision, backends.fp32_precision = "none", "tf32"
    try:
        assert rounded(tf32)[0]
        with exact_arithmetic(torch.device("cuda")):
            assert not any(rounded(tf32))
        assert rounded(tf32)[0]
        backends.fp32_precision = "none"  # still counts for all that have none of their own
        assert not rounded(tf32)[0]
    finally:
        backends.fp32_precision = "none"
