"""How a training goes on after it was cut off: what is done is skipped, what was begun is restored.

A training that starts again runs through the same lines. What is cheap and gives the same bits is
done anew; a phase that had ended gets back what it had learned, the phase that was cut off goes on
after its last step that was kept, and the random generators stand where they stood then.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from ptsne.training.distributed import ALONE, World

State: TypeAlias = dict[str, Any]
"""Tensors, numbers, texts and None, in dicts and lists."""
T = TypeVar("T")


class Part(Protocol):
    """Something that changes from step to step; a module of torch is one."""

    def state_dict(self) -> State:
        """All that the next steps depend on."""

    def load_state_dict(self, state: State, /) -> object:
        """Be as it was when `state` was taken."""


class Store(Protocol):
    """Where the state of a training is kept."""

    def read(self) -> State | None:
        """What was written last, tensors on the CPU."""

    def write(self, state: State) -> None:
        """Replace it, whole or not at all; OSError if that is not possible."""


class Randomness:
    """The generator of a training beside torch's global ones, which layers such as dropout use.

    Parameters
    ----------
    generator : torch.Generator
        The training's own.
    device : torch.device
        Whose global generator counts besides the CPU's.
    """

    def __init__(self, generator: torch.Generator, device: torch.device | str = "cpu") -> None:
        self._generator, self._device = generator, torch.device(device)

    def state_dict(self) -> State:
        """States of the generators."""
        state = {
            "own": self._generator.get_state(),
            "global": torch.default_generator.get_state(),
        }
        if self._device.type == "cuda":  # pragma: no cover - needs a CUDA device
            state["cuda"] = torch.cuda.get_rng_state(self._device)
        return state

    def load_state_dict(self, state: State, /) -> None:
        """Set the generators back."""
        self._generator.set_state(state["own"])
        torch.default_generator.set_state(state["global"])
        if self._device.type == "cuda":  # pragma: no cover - needs a CUDA device
            torch.cuda.set_rng_state(state["cuda"], self._device)


class Tensors:
    """Tensors that are changed in place.

    Parameters
    ----------
    **tensors : Tensor
        By name.
    """

    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = tensors

    def state_dict(self) -> State:
        """The tensors."""
        return dict(self._tensors)

    def load_state_dict(self, state: State, /) -> None:
        """Put their values back."""
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])


class Checkpoint:
    """Keeps the state of a training every few seconds, and gives it back to one that goes on.

    Parameters
    ----------
    store : Store or None
        Where; None keeps nothing.
    journal : Part or None
        The records, whole at every moment.
    randomness : Part or None
        The generators.
    world : World
        Of several processes, the first one's clock is everybody's.

    Attributes
    ----------
    seconds : float
        Time between two writings, at least.
    share : float
        Share of the time that writing may take, at most: large states are written less often.
    """

    seconds: ClassVar[float] = 10.0
    share: ClassVar[float] = 0.02

    def __init__(
        self,
        store: Store | None = None,
        journal: Part | None = None,
        randomness: Part | None = None,
        world: World = ALONE,
    ) -> None:
        self._store, self._world = store, world
        self._company = {"journal": journal, "randomness": randomness}
        self._kept: State = {"once": {}, "ended": {}, "running": None}
        self._n_phases = 0
        self._due = -math.inf  # at the first step, so that what cannot be kept is known at once
        stored = None if store is None else store.read()
        if stored is not None:
            self._kept = stored["kept"]
            self._load({"journal": stored["journal"]})

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """What `compute` gives, or gave in the training that goes on.

        Parameters
        ----------
        name : str
            Of the result, within the training.
        compute : callable
            Gives tensors, numbers and texts, in dicts and lists; called where nothing was kept.

        Returns
        -------
        object
            The result; of what was kept, tensors are on the CPU.
        """
        if self._store is None:
            return compute()
        if name not in self._kept["once"]:
            self._kept["once"][name] = _copied(compute())
        result: T = _copied(self._kept["once"][name])
        return result

    def start(self, name: str, part: Part) -> None:
        """Let a part start as it did in the training that goes on.

        Parameters
        ----------
        name : str
            Of the part, within the training.
        part : Part
            In the state it was given in.
        """
        if self._store is not None:
            part.load_state_dict(self.once(name, part.state_dict))

    def steps(
        self, phase: str, n_steps: int, learned: Part, *working: Part, stride: int = 1
    ) -> Iterator[int]:
        """Count the steps of a phase that are left to do.

        Parameters
        ----------
        phase : str
            Its name.
        n_steps : int
            All its steps.
        learned : Part
            What the phase gives to those after it.
        *working : Part
            What else goes from one step to the next.
        stride : int
            Steps between two moments at which these parts are the whole state.

        Yields
        ------
        int
            Step to do, from 0 in a phase that has not begun.
        """
        if self._store is None:
            yield from range(n_steps)
            return
        self._n_phases += 1
        name = f"{self._n_phases} {phase}"
        if name in self._kept["ended"]:
            self._load(self._kept["ended"][name], {"learned": learned})
            return
        parts = {"learned": learned, **{f"working {i}": part for i, part in enumerate(working)}}
        for step in range(self._resume(name, parts), n_steps):
            yield step
            if (step + 1) % stride == 0 and self._world.same(perf_counter() >= self._due):
                self._kept["running"] = {"phase": name, "step": step + 1, **self._state(parts)}
                self._write(self._store)
        self._kept["ended"][name] = _copied(self._state({"learned": learned}))
        self._kept["running"] = None

    def _resume(self, name: str, parts: Mapping[str, Part]) -> int:
        """Bring the parts of a phase up to date; returns the number of its steps that are done."""
        running = self._kept["running"]
        if running is None:
            return 0
        if running["phase"] != name:
            raise ValueError(
                f"the checkpoint was written in phase {running['phase']!r}, and this training "
                f"comes to {name!r} instead; delete it, or fit with the ptsne that wrote it"
            )
        self._load(running, parts)
        self._kept["running"] = None
        return int(running["step"])

    def _state(self, parts: Mapping[str, Part]) -> State:
        with_randomness = {**parts, "randomness": self._company["randomness"]}
        return {name: p.state_dict() for name, p in with_randomness.items() if p is not None}

    def _load(self, state: State, parts: Mapping[str, Part] | None = None) -> None:
        for name, part in {**self._company, **(parts or {})}.items():
            if name in state and part is not None:
                part.load_state_dict(state[name])

    def _write(self, store: Store) -> None:
        """Write all that is kept; training goes on where that fails."""
        start, journal = perf_counter(), self._company["journal"]
        state = {"kept": self._kept, "journal": journal.state_dict() if journal else None}
        try:
            store.write(state)
        except OSError as error:
            message = f"training goes on without a new checkpoint: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        end = perf_counter()
        self._due = end + max(self.seconds, (end - start) / self.share)


def _copied(value: Any) -> Any:
    """The same state in memory of its own, tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(part) for part in value]
    return value
