"""Measured rules that turn "auto" into numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ptsne.training.distillation import Distillation
from ptsne.training.finetuning import FineTuning
from ptsne.training.landmarks import regularisation
from ptsne.training.mapping import MapSettings
from ptsne.training.places import Schedule
from ptsne.training.pretraining import PreTraining

DROPOUT, NOISE = 0.8, 2.0
PAPER_WIDTHS = (500, 500, 2000)
MANY_ROWS = 20_000


class Course(NamedTuple):
    """Iterations over all phases, and the shares of the two phases of the places."""

    max_iter: int
    early: float
    late: float


# Few rows: a step of the places costs a thirteenth of one of the fine-tuning. Of 10,000 MNIST or
# Fashion-MNIST rows 380 and 352 of them map as well as 204 and 408, in a tenth less time.
# Many rows have many landmarks, whose places take longer and cost a 25th: of 55,000 MNIST rows
# 800 steps, not 384, win .007 of the recall of new rows and .05 of the KL. Each further step of the
# fine-tuning wins fidelity.
COURSE = {"few": Course(800, 0.085, 0.475), "many": Course(1100, 0.06, 0.72)}
# A ReLU network learns the places: what they lack it cannot have.
NETWORK_COURSE = {"few": Course(700, 0.1, 0.45), "many": Course(810, 0.0875, 0.52)}


class Quality(NamedTuple):
    """What a preset does to the numbers that are "auto": factors on those of "default"."""

    iterations: float
    landmarks: float


QUALITIES = {
    "fast": Quality(iterations=0.5, landmarks=0.75),
    "default": Quality(iterations=1.0, landmarks=1.0),
    "high": Quality(iterations=2.0, landmarks=1.6),
}


def default_latent_dim(n_features: int) -> int:
    """Principal components kept: 50, or all columns."""
    return min(50, n_features)


def default_n_landmarks(n_samples: int, quality: Quality) -> int:
    """Landmarks: a third of few rows, a fifth up to 1000, then a tenth up to 8000."""
    if n_samples < 10_000:
        few = max(1, min(1000, max(n_samples // 5, min(n_samples // 3, 30))))
        return max(min(few, 30), round(few * quality.landmarks))
    return round(min(8000, n_samples // 10) * quality.landmarks)


def default_dropout(n_features: int, latent_dim: int) -> float:
    """Energy of the input dropout: less where the codes leave few directions of the rows out."""
    # What is left out is where an encoder can tell training rows apart by chance. Principal
    # components of MNIST, 50 or 100, and of blood cells, 50, map best without dropout; 14 x 14
    # pixels with .5 to .7.
    left_out = max(0.0, 1 - latent_dim / n_features)
    return DROPOUT * regularisation(latent_dim) * left_out**2


def default_course(n_samples: int, *, is_atlas: bool) -> Course:
    """Course of the training of so many rows."""
    courses = COURSE if is_atlas else NETWORK_COURSE
    return courses["few" if n_samples <= MANY_ROWS else "many"]


def default_distillation(n_samples: int, n_iterations: int, exaggeration: float) -> Distillation:
    """Steps of a ReLU network: ten an iteration, more for more rows, and then two on the KL."""
    # A map of more rows is finer against its extent. A step on the KL costs more with more rows.
    finer = max(1.0, n_samples / 10_000) ** 0.5
    return Distillation(round(10 * finer * n_iterations), 2 * n_iterations, exaggeration)


def map_settings(shape: tuple[int, ...], parameters: Mapping[str, Any]) -> MapSettings:
    """Resolve the estimator's parameters for data of a given size.

    Parameters
    ----------
    shape : (int, int)
        N and D.
    parameters : mapping
        Parameters of `ParametricTSNE` by name.

    Returns
    -------
    MapSettings
        With every "auto" replaced by a number.
    """
    n_samples, n_features = shape

    def number(name: str, default: float) -> float:
        return default if parameters[name] == "auto" else parameters[name]

    quality = QUALITIES[parameters["quality"]]
    encoder, projection = parameters["encoder"], parameters["projection"]
    course = default_course(n_samples, is_atlas=_is(projection, "atlas"))
    total = int(number("max_iter", round(course.max_iter * quality.iterations)))
    early = round(course.early * total)
    late = max(1, round(course.late * total))
    tune = max(0, total - early - late)
    exaggeration, dof = parameters["exaggeration"], parameters["dof"]
    rate = number("learning_rate", n_samples * dof / (2 * (dof + 1)))
    n_landmarks = int(number("n_landmarks", default_n_landmarks(n_samples, quality)))
    latent_dim = int(number("latent_dim", default_latent_dim(n_features)))
    return MapSettings(
        n_components=parameters["n_components"],
        latent_dim=latent_dim,
        n_landmarks=min(n_samples, n_landmarks),
        encoder=() if isinstance(encoder, str) else _widths("encoder", encoder),
        projection=PAPER_WIDTHS if _is(projection, "mlp") else _widths("projection", projection),
        schedule=Schedule(early, late, parameters["early_exaggeration"], exaggeration, rate),
        finetuning=FineTuning(
            tune,
            exaggeration,
            parameters["fidelity_weight"],
            parameters["reconstruction_weight"],
            dropout=default_dropout(n_features, latent_dim),
            noise=NOISE * regularisation(latent_dim),
        ),
        distillation=default_distillation(n_samples, tune, exaggeration),
        pretraining=PreTraining(decoder_widths=_decoder_widths(encoder)),
    )


def _is(value: object, word: str) -> bool:
    return isinstance(value, str) and value == word


def _widths(name: str, value: Any) -> Any:
    """The value itself, if it is not a sequence of widths with a wrong one."""
    if isinstance(value, (tuple, list)) and not all(isinstance(w, int) and w > 0 for w in value):
        raise ValueError(f"{name} widths must be positive integers; got {value!r}")
    return value


def _decoder_widths(encoder: object) -> Sequence[int]:
    """ReLU widths of the decoder: none beside a linear encoder, a tuple's mirror, else 256."""
    if isinstance(encoder, (tuple, list)):
        return tuple(reversed(encoder))
    return () if _is(encoder, "linear") else (256,)
