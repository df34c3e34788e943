"""What training tells the outside: records, callbacks, a progress bar, and how it stops."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from ptsne.training.checkpoint import Checkpoint, Part, State
from ptsne.training.distributed import ALONE, World

INTERRUPTED = "interrupted"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """State of training at one moment.

    Parameters
    ----------
    phase : str
        "pre-training", "places", "fine-tuning", ...
    iteration : int
        Iterations done in this phase, from 1.
    n_iterations : int
        Iterations planned in this phase.
    loss : float
        What this phase minimises (KL plus penalties, or reconstruction error).
    kl : float
        KL(P || Q) of the map in nats, not exaggerated; NaN where the phase has no map.
    seconds : float
        Wall time since training began.
    """

    phase: str
    iteration: int
    n_iterations: int
    loss: float
    kl: float
    seconds: float
    _places: Callable[[], Tensor] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_places": None}  # what is kept or sent must not hold the network

    @property
    def embedding(self) -> NDArray[np.float32] | None:
        """Places (N, K) of the training rows at this moment, or None in a phase without a map.

        Computed when it is asked for, within the callback: with a network trained, a run of all
        rows through it. Records that were kept (``history_``) have none.
        """
        if self._places is None:
            return None
        places: NDArray[np.float32] = self._places().detach().cpu().numpy()
        return places.copy()


Callback = Callable[[Record], object]


class StopTraining(Exception):
    """Raised inside training when a callback returned True."""


@dataclass
class Journal:
    """Collects records, calls the callbacks, and remembers whether training was stopped.

    Parameters
    ----------
    callbacks : sequence of callables
        Each is called with every `Record`; one that returns True stops training cleanly.
    world : World
        Of several processes, the first calls and decides.
    checkpoint : Checkpoint
        Keeps the state of the training between its steps.
    """

    callbacks: Sequence[Callback] = ()
    records: list[Record] = field(default_factory=list)
    stopped: str | None = None
    start: float = field(default_factory=perf_counter)
    world: World = ALONE
    checkpoint: Checkpoint = field(default_factory=Checkpoint)

    def steps(
        self, phase: str, n_steps: int, learned: Part, *working: Part, stride: int = 1
    ) -> Iterator[int]:
        """Steps of a phase that are left to do; see `Checkpoint.steps`."""
        return self.checkpoint.steps(phase, n_steps, learned, *working, stride=stride)

    def state_dict(self) -> State:
        """Records so far, and how long they took."""
        return {"records": self.history(), "seconds": perf_counter() - self.start}

    def load_state_dict(self, state: State, /) -> None:
        """Go on after these records, of which the callbacks have heard."""
        self.records = [Record(**record) for record in state["records"]]
        self.start = perf_counter() - state["seconds"]

    def record(
        self,
        phase: str,
        iteration: int,
        n_iterations: int,
        *,
        loss: float,
        kl: float = math.nan,
        places: Callable[[], Tensor] | None = None,
    ) -> None:
        """Add one record and call the callbacks.

        Parameters
        ----------
        phase, iteration, n_iterations, loss, kl
            Fields of `Record`.
        places : callable, optional
            Gives the map as it is now, in map units; called when a callback asks for it.

        Raises
        ------
        FloatingPointError
            If the loss is not finite.
        StopTraining
            If a callback returned True.
        """
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} in iteration {iteration} of {phase}: the likely cause is "
                "a learning_rate that is too high or columns of very different scale; lower "
                "learning_rate or standardise the columns"
            )
        seconds = perf_counter() - self.start
        record = Record(phase, iteration, n_iterations, loss, kl, seconds)
        self.records.append(record)
        told = replace(record, _places=places)
        callbacks = self.callbacks if self.world.rank == 0 else ()
        answers = [callback(told) for callback in callbacks]  # every one is called
        if self.world.same(any(answer is True for answer in answers)):
            raise StopTraining("a callback returned True")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Turn Ctrl-C and `StopTraining` into a clean end of the phase."""
        try:
            yield
        except KeyboardInterrupt:
            if self.world.size > 1:  # the others are at another step, or not interrupted
                raise
            self.stopped = INTERRUPTED
        except StopTraining as stop:
            self.stopped = str(stop)
        if self.stopped:
            logger.info("training stopped: %s", self.stopped)

    @property
    def n_iterations(self) -> int:
        """Iterations done on the map, over all its phases."""
        phases = {record.phase: record for record in self.records if not math.isnan(record.kl)}
        return sum(record.iteration for record in phases.values())

    def history(self) -> list[dict[str, object]]:
        """Return all records as plain dicts."""
        records = [dict(vars(record)) for record in self.records]
        for record in records:
            del record["_places"]
        return records


class ProgressBar:
    """A tqdm bar for each phase; a callback and a context manager.

    Parameters
    ----------
    enabled : bool
        Draw nothing when False.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._phase: str | None = None
        self._bar: tqdm[Any] | None = None

    def __call__(self, record: Record) -> None:
        """Move the bar to `record`."""
        if not self.enabled:
            return
        if record.phase != self._phase or self._bar is None:
            self.close()
            self._phase = record.phase
            self._bar = tqdm(total=record.n_iterations, desc=f"{record.phase:>12}", leave=True)
        bar = self._bar
        value = f"loss {record.loss:.3f}" if math.isnan(record.kl) else f"KL {record.kl:.3f}"
        bar.set_postfix_str(value, refresh=False)
        bar.update(record.iteration - bar.n)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the current bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
