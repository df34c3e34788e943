"""What cannot be linearized is said, with the operation, the module and the way out."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cases import Case
from ptsne.linearize import (
    UnsupportedOperation,
    gain,
    linearization_rule,
    linearize,
    paired_linearization,
    table,
)
from ptsne.linearize.rule import RuleBook


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Checkpointed(nn.Module):
    def __init__(self, *, use_reentrant):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.use_reentrant = use_reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.use_reentrant)


class Middle(nn.Module):
    """A network whose second module does something."""

    def __init__(self, function):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.middle = nn.Sequential(nn.Identity(), Calls(function))

    def forward(self, x):
        return self.middle(self.first(x))


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def refusal(model, **options):
    x = Case("", nn.Identity).x()
    with pytest.raises(UnsupportedOperation) as caught:
        linearize(Case("", lambda: model).model(), x, **options).weight()
    return str(caught.value)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_classifier_that_ends_in_softmax(name):
    said = refusal(Middle(lambda h: getattr(torch, name)(h, 1)))
    assert "middle.1" in said
    assert "Linearize the logits, or use activation='tangent'" in said


def test_a_function_of_ones_own_wants_a_rule():
    said = refusal(Middle(Square.apply))
    assert "SquareBackward" in said
    assert "middle.1" in said
    assert said.endswith("Register one with linearization_rule")
    said = refusal(Middle(Square.apply), activation="tangent")
    assert "SquareBackward" in said
    assert "Write it in operations of torch" in said


def test_a_module_in_training_mode():
    model = Middle(torch.tanh).eval()
    model.middle[0].train()
    with pytest.raises(UnsupportedOperation, match=r"'middle\.0' is in training mode.*eval"):
        linearize(model, torch.zeros(1, 8))


def test_reentrant_checkpoints_hide_their_operations():
    said = refusal(Checkpointed(use_reentrant=True))
    assert "CheckpointFunctionBackward" in said
    assert "use_reentrant=False" in said


def test_checkpoints_compute_again_what_has_no_gates():
    said = refusal(Checkpointed(use_reentrant=False))
    assert "Turn checkpointing off, or freeze" in said


def test_checkpoints_of_frozen_parameters_are_fine():
    case = Case("", lambda: Checkpointed(use_reentrant=False).requires_grad_(False))
    model, x = case.model(), case.x()
    plain = linearize(model.inner, x)
    torch.testing.assert_close(linearize(model, x).weight(), plain.weight())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript():
    traced = torch.jit.trace(nn.Linear(8, 8).eval(), torch.zeros(1, 8))
    with pytest.raises(UnsupportedOperation, match=r"TorchScript.*pass the module they were made"):
        linearize(traced, torch.zeros(1, 8))
    part = nn.Sequential(traced, nn.ReLU()).eval()  # its operations are seen all the same
    x = torch.ones(1, 8)
    moved = (linearize(part, x).weight() * x).sum(2) + linearize(part, x).bias()
    torch.testing.assert_close(moved, part(x).detach())


def test_values_from_outside_autograd_stop_what_has_to_run_again():
    said = refusal(Middle(lambda h: torch.maximum(h, h.detach() - 1)))
    assert "MaximumBackward" in said
    assert "outside autograd" in said


def test_a_second_start_of_the_graph():
    said = refusal(Middle(lambda h: torch.fmod(h, h.detach().requires_grad_(True))))
    assert "FmodBackward" in said
    assert "its inputs could not be recorded" in said


def test_a_rule_that_asks_for_what_is_not_seen(monkeypatch):
    monkeypatch.setattr(table, "RULES", RuleBook(table.RULES))

    @linearization_rule(Square)
    def square(operation):
        return gain(operation, operation.input)

    said = refusal(Middle(Square.apply))
    assert "SquareBackward" in said
    assert "the call was not seen" in said


def test_sparse_tensors_of_x():
    said = refusal(Middle(lambda h: h.relu().to_sparse().to_dense()))
    assert "module 'middle.1' makes a sparse tensor of x" in said


def test_differences_name_operation_and_module_too():
    case = Case("", lambda: Middle(lambda h: h.prod(1)))
    with pytest.raises(UnsupportedOperation, match=r"ProdBackward.*'middle\.1'.*exact difference"):
        paired_linearization(case.model(), case.x(), case.x(seed=7))
