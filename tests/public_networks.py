"""Networks of torchvision and timm, unmodified, in a state in which their maps say something.

As they are built, many could not fail a test: heads and layer scales start at zero, and the signal
dies on the way. So constants are drawn, and each layer is scaled to what it makes of random rows.
"""

import warnings
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_DECLARED = []  # schemas live as long as their library


@dataclass(frozen=True)
class Network:
    """A network by its name in a library, and the side of the pictures it is shown."""

    library: str
    name: str
    size: int = 64
    options: dict = field(default_factory=dict)

    @property
    def shape(self):
        return (3, self.size, self.size)

    def model(self):
        create = CREATE[self.library]()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = create(self.name, **self.options)
            draw_constants(model)
            calibrate(model, torch.randn(4, *self.shape))
        return model.eval()

    def x(self, n=2, dtype=torch.float64, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n, *self.shape, generator=generator, dtype=torch.float64).to(dtype)


def torchvision():
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        return models_of_torchvision()
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    # built for another torch: its own operators are missing, but its classifiers call none
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
    return models_of_torchvision()


def models_of_torchvision():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torchvision")
        return import_module("torchvision.models").get_model


def timm():
    torchvision()  # which timm imports
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="timm")
        return import_module("timm").create_model


CREATE = {"torchvision": torchvision, "timm": timm}


def draw_constants(model):
    """Shift what is constant at the start: biases, shifts, layer scales, heads of zeros."""
    for parameter in model.parameters():
        if parameter.dim() < 2 or float(parameter.detach().std()) < 1e-3:
            parameter.data += 0.2 * torch.randn_like(parameter)


def calibrate(model, x):
    """Set statistics of batch normalisations and the scale of other layers to rows x."""
    handles = [
        module.register_forward_hook(_scale)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None
            module.train()
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()


def _scale(module, args, output):
    size = output.std()
    for parameter in module.parameters(recurse=False):
        parameter.data /= size
    return output / size
