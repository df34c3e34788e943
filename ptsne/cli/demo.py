"""The demonstration: maps of iris and digits, measured on rows they never saw, and explained."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import train_test_split

from ptsne import plots
from ptsne.cli.tables import write_csv
from ptsne.estimator import ParametricTSNE
from ptsne.evaluation import evaluate
from ptsne.explanation import Explanation

LEGEND = """
recall         share of the 15 nearest rows in the data that are also nearest on the map
accuracy       how often the 10 nearest points on the map vote for the right class
trust          1 when no point has neighbours on the map that are strangers in the data
fidelity       1 when W predicts where a row's neighbours in the data stand on the map
|Wx+b-y|       how exact the explanation y = W x + b is, relative to its terms
Held-out rows were never seen in training; their neighbours are sought among the training rows.
"""


class Fitted(NamedTuple):
    """A data set, its map, and the explanation of its held-out rows."""

    name: str
    classes: list[str]
    X: pd.DataFrame
    X_held_out: pd.DataFrame
    y: NDArray[np.int64]
    y_held_out: NDArray[np.int64]
    map_: ParametricTSNE
    explanation: Explanation
    seconds: float


def run(folder: Path) -> None:
    """Map iris and digits; write pictures and tables; print what was measured and where to look.

    Parameters
    ----------
    folder : Path
        Where the files go; made when it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    iris = _fit("iris", load_iris)
    digits = _fit("digits", load_digits)
    quality = pd.DataFrame([line for fitted in (iris, digits) for line in _quality(fitted)])
    styles: dict[str, Callable[..., str]] = {
        "fit seconds": "{:.1f}".format,
        "|Wx+b-y|": "{:.0e}".format,
    }
    table = quality.to_string(index=False, float_format="{:.3f}".format, formatters=styles)
    print(f"\n{table}\n{LEGEND}")
    write_csv(quality, folder / "quality.csv")
    _write_tables(iris, folder)
    _write_tables(digits, folder)
    flower = _typical_rows(iris)[2]
    _save(plots.contributions(iris.explanation, flower), folder / "iris-contributions.png")
    _save(_digit_pictures(digits), folder / "digits-contributions.png")
    print(_guide(folder, iris, flower))


def _fit(name: str, load: Callable[..., Any]) -> Fitted:
    """Learn the map of two thirds of the rows and explain the other third."""
    data = load(as_frame=True)
    X, X_held_out, y, y_held_out = train_test_split(
        data.data, data.target.to_numpy(), test_size=1 / 3, stratify=data.target, random_state=0
    )
    print(f"{name}: {len(X):,} rows to learn from, {len(X_held_out):,} held out")
    start = perf_counter()
    map_ = ParametricTSNE(random_state=0, verbose=1).fit(X)
    seconds = perf_counter() - start
    classes = [str(c) for c in data.target_names]
    why = map_.explain(X_held_out)
    return Fitted(name, classes, X, X_held_out, y, y_held_out, map_, why, seconds)


def _quality(fitted: Fitted) -> list[dict[str, Any]]:
    """One line for the training rows and one for the held-out rows."""
    X, X_held_out, y, y_held_out = fitted.X, fitted.X_held_out, fitted.y, fitted.y_held_out
    quality = evaluate(fitted.map_, X, X_held_out, y, y_held_out)
    return [
        _line(fitted, "training", fitted.map_.explain(X), quality.training),
        _line(fitted, "held-out", fitted.explanation, quality.held_out),
    ]


def _line(
    fitted: Fitted, rows: str, why: Explanation, measured: dict[str, float]
) -> dict[str, Any]:
    return {
        "data": fitted.name,
        "rows": rows,
        "number": len(why.X),
        "fit seconds": fitted.seconds,
        "recall": measured["recall_15"],
        "accuracy": measured["accuracy_10"],
        "trust": measured["trustworthiness_15"],
        "fidelity": measured["fidelity_r2"],
        "|Wx+b-y|": float(why.residual.max()),
    }


def _write_tables(fitted: Fitted, folder: Path) -> None:
    """Places of all rows, contributions of the held-out rows, the map and the training curve."""
    Y = np.vstack([fitted.map_.embedding_, fitted.explanation.Y])
    y = np.concatenate([fitted.y, fitted.y_held_out])
    is_held_out = np.arange(len(Y)) >= len(fitted.X)
    places = pd.DataFrame(Y, columns=["y1", "y2"])
    places["class"] = np.array(fitted.classes)[y]
    places["rows"] = np.where(is_held_out, "held-out", "training")
    write_csv(places, folder / f"{fitted.name}-places.csv")
    write_csv(fitted.explanation.to_frame(), folder / f"{fitted.name}-contributions.csv")
    ax = plots.map(Y, y=y, names=fitted.classes, held_out=is_held_out)
    _save(ax, folder / f"{fitted.name}-map.png")
    _save(plots.training_curve(fitted.map_.history_), folder / f"{fitted.name}-training.png")


def _digit_pictures(digits: Fitted) -> Any:
    """A typical picture of each digit beside the map."""
    typical = _typical_rows(digits)
    return plots.contribution_grid(
        digits.explanation, typical, (8, 8), y=digits.y_held_out, n_columns=4
    )


def _typical_rows(fitted: Fitted) -> list[int]:
    """Held-out row nearest to the middle of each class, among those that one chart holds."""
    why = fitted.explanation
    typical = []
    for k in range(len(fitted.classes)):
        of_class = fitted.y_held_out == k
        middle = np.median(why.Y[of_class], axis=0)
        distance = np.linalg.norm(why.Y - middle, axis=1)
        distance[~of_class] = np.inf
        distance[why.n_active > 1] += 1e6  # on a boundary W is the slope of a ramp
        typical.append(int(distance.argmin()))
    return typical


def _save(ax: Any, path: Path) -> None:
    ax.figure.savefig(path, dpi=160)
    plt.close(ax.figure)


def _guide(folder: Path, iris: Fitted, flower: int) -> str:
    """What was written, and what to look at first."""
    why = iris.explanation
    lengths = np.linalg.norm(why.displacement(), axis=1)
    first = np.bincount(lengths.argmax(1), minlength=why.X.shape[1])
    name, share = why.feature_names[first.argmax()], first.max() / first.sum()
    kind = iris.classes[iris.y_held_out[flower]]
    return f"""Written to {folder}/:
  digits-map.png            Ten islands, one a digit? Rings are held-out rows: are they at home?
  digits-contributions.png  Which pixels take a digit to its place (red), which hold it back (blue)?
  iris-map.png              Where two species meet, which flowers stand on the wrong side?
  iris-contributions.png    What takes one {kind} from the place of the mean flower
                            to its place? For {share:.0%} of the held-out flowers it is
                            {name} most of all.
  *-training.png            How the KL divergence fell, phase by phase.
  *-places.csv              Where every row stands.
  *-contributions.csv       Every held-out row and column: contribution W (x - baseline), and W.
  quality.csv               The table above."""
