"""The command line: `ptsne demo | fit | transform | explain | report | serve | export`."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ptsne import plots
from ptsne.cli import demo, export, report
from ptsne.cli.tables import Table, TableError, read_table, write_csv
from ptsne.estimator import ParametricTSNE, fit_to_file
from ptsne.training import QUALITIES

TABLE_HELP = "table of numbers: .csv or .tsv with a line of names, .npy, or .parquet"
ROWS_PER_BLOCK = 500


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after ``ptsne``; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, or 2 after an error, which is one line on the standard error, or 130 when
        stopped by Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    plt.switch_backend("Agg")  # pictures go to files; no screen is needed
    with warnings.catch_warnings():
        warnings.showwarning = _note
        try:
            options.run(options)
        except (TableError, ValueError, OSError, MemoryError) as error:
            print(f"ptsne {options.command}: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"\nptsne {options.command}: stopped", file=sys.stderr)
            return 130
    return 0


def _demo(options: argparse.Namespace) -> None:
    demo.run(options.output)


def _fit(options: argparse.Namespace) -> None:
    table = read_table(options.table, label=options.label, ignore=options.ignore)
    print(f"{options.table}: {table.X.shape[0]:,} rows, {table.X.shape[1]:,} columns of data")
    start = perf_counter()
    map_ = _new_map(options)
    _make_folder(options.output)
    fit_to_file(map_, table.X, options.output, landmark_rows=options.landmark_rows)
    seconds = perf_counter() - start
    print(f"fitted in {seconds:.1f} s, KL(P || Q) = {map_.kl_divergence_:.3f} nats")
    print(f"wrote the model {options.output}")
    if options.picture:
        _make_folder(options.picture)
        plots.map(map_, y=table.labels)
        plt.savefig(options.picture, dpi=200)
        print(f"wrote the picture {options.picture}")


def _transform(options: argparse.Namespace) -> None:
    map_, table = _load(options)
    blocks = [map_.transform(block) for block in _blocks(table.X)]
    Y = np.vstack([np.asarray(block) for block in blocks])
    write_csv(pd.DataFrame(Y, columns=[f"y{k + 1}" for k in range(Y.shape[1])]), options.output)
    print(f"wrote {options.output}: the place of each of {len(Y):,} rows, in their order")


def _explain(options: argparse.Namespace) -> None:
    map_, table = _load(options)
    residual = 0.0
    for k, block in enumerate(_blocks(table.X)):
        explanation = map_.explain(block, baseline=options.baseline)
        frame = explanation.to_frame()
        frame["row"] += k * ROWS_PER_BLOCK + 1
        write_csv(frame, options.output, append=k > 0)
        residual = max(residual, float(explanation.residual.max()))
    print(f"wrote {options.output}: for each row, counted from 1, a line per column of data with")
    print("its contribution W (x - baseline) to each map coordinate, and W itself")
    print(f"checked: |W x + b - y| is at most {residual:.0e} of its terms")


def _report(options: argparse.Namespace) -> None:
    report.write(*_load(options), options)


def _serve(options: argparse.Namespace) -> None:
    report.serve(*_load(options), options)


def _new_map(options: argparse.Namespace) -> ParametricTSNE:
    perplexity = options.perplexity
    return ParametricTSNE(
        options.components,
        perplexity=perplexity[0] if len(perplexity) == 1 else perplexity,
        quality=options.quality,
        device=options.device,
        random_state=options.seed,
        checkpoint=options.checkpoint,
        verbose=1,
    )


def _load(options: argparse.Namespace) -> tuple[ParametricTSNE, Table]:
    """The model, and the columns it was fitted on."""
    if not options.model.exists():
        raise TableError(f"{options.model}: there is no such model; ptsne fit writes one")
    map_ = ParametricTSNE.load(options.model)
    names = getattr(map_, "feature_names_in_", None)
    label, ignore = report.special_columns(options)
    columns = None if names is None else list(names)
    table = read_table(options.table, label=label, ignore=ignore, columns=columns)
    if table.unused:
        print(f"not part of the model, left out: {', '.join(table.unused)}", file=sys.stderr)
    return map_, table


def _blocks(X: Any) -> Any:
    """Parts of a table, under a progress bar."""
    starts = range(0, len(X), ROWS_PER_BLOCK)
    bar = tqdm(starts, desc="rows", unit_scale=ROWS_PER_BLOCK, unit="row")
    return (X[start : start + ROWS_PER_BLOCK] for start in bar)


def _make_folder(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as a sentence, without the line of code it came from."""
    print(f"note: {message}", file=sys.stderr)


# ---------------------------------------------------------------------------------- the words


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ptsne",
        description="Maps of tables (parametric t-SNE) that place new rows and explain every "
        "place exactly: y = W x + b.",
        epilog="Begin with: ptsne demo",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_fit(commands)
    _add_transform(commands)
    _add_explain(commands)
    _add_report(commands)
    _add_serve(commands)
    _add_export(commands)
    return parser


def _add(commands: Any, name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
    """A command with one sentence of help and an example."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"Example: {example}"
    )
    command.set_defaults(run=run)
    return command


def _add_demo(commands: Any) -> None:
    text = "map and explain two small data sets, iris and digits, and say what to look at"
    command = _add(commands, "demo", _demo, text, "ptsne demo -o my-folder")
    command.add_argument(
        *("-o", "--output"),
        type=Path,
        default=Path("ptsne-demo"),
        metavar="FOLDER",
        help="where pictures and tables go (default: ptsne-demo)",
    )


def _add_fit(commands: Any) -> None:
    text = "learn the map of a table and save it"
    example = "ptsne fit flowers.csv -o flowers.model --label species --picture flowers.png"
    command = _add(commands, "fit", _fit, text, example)
    option = command.add_argument
    option("table", type=Path, help=TABLE_HELP)
    option("-o", "--output", type=Path, required=True, metavar="MODEL", help="file to write")
    option("--label", metavar="COLUMN", help="column with classes: not data, only colours")
    option("--ignore", metavar="COLUMN", nargs="+", default=[], help="columns to leave out")
    option("--picture", type=Path, metavar="FILE", help="also draw the map: .png, .pdf or .svg")
    option(
        "--perplexity",
        type=float,
        nargs="+",
        default=[30.0],
        metavar="P",
        help="about how many neighbours each row has (default: 30); several: all scales at once",
    )
    option(
        "--quality",
        choices=QUALITIES,
        default="default",
        help='"fast" trains half as long with fewer landmarks, "high" twice as long',
    )
    option("--components", type=int, default=2, metavar="K", help="dimensions of the map: 1 to 3")
    option("--seed", type=int, default=0, help="the same seed gives the same map (default: 0)")
    option(
        "--no-landmark-rows",
        dest="landmark_rows",
        action="store_false",
        help="keep no row of the table in the model; explanations then name landmarks by number",
    )
    option("--device", default="auto", help='"cpu", "cuda" or "auto" (default)')
    option(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="keep the unfinished fit there; the same command goes on with it when it was cut off",
    )


def _add_transform(commands: Any) -> None:
    text = "place the rows of a table on a saved map"
    command = _add(commands, "transform", _transform, text, "ptsne transform m new.csv -o out.csv")
    _add_model_and_tables(command)


def _add_explain(commands: Any) -> None:
    text = "say for each row and column how far the column moves the row on a saved map"
    command = _add(commands, "explain", _explain, text, "ptsne explain m new.csv -o why.csv")
    _add_model_and_tables(command)
    command.add_argument(
        "--baseline",
        choices=["mean", "zero", "landmark"],
        default="mean",
        help="measure from the mean of the fitted rows (default), from zero, or from the fitted "
        "row nearest to the landmark that holds the row",
    )


def _add_report(commands: Any) -> None:
    text = "write one interactive page that shows a saved map and explains every row of a table"
    example = "ptsne report flowers.model flowers.csv -o flowers.html --label species"
    command = _add(commands, "report", _report, text, example)
    _add_model_and_table(command)
    report.add_options(command)
    command.add_argument(
        *("-o", "--output"), type=Path, required=True, metavar="HTML", help="page to write"
    )


def _add_serve(commands: Any) -> None:
    text = "serve the same page live on this computer: the model places and explains new rows"
    example = "ptsne serve flowers.model flowers.csv --label species"
    command = _add(commands, "serve", _serve, text, example)
    _add_model_and_table(command)
    report.add_options(command)
    command.add_argument("--port", type=int, default=8000, help="port (default: 8000)")


def _add_export(commands: Any) -> None:
    text = "write a saved map as an ONNX file, which other languages and devices can run"
    example = "ptsne export flowers.model -o flowers.onnx --with-explanation"
    export.add_options(_add(commands, "export", export.write, text, example))


def _add_model_and_tables(command: argparse.ArgumentParser) -> None:
    _add_model_and_table(command)
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="CSV", help="table to write"
    )


def _add_model_and_table(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, help="what ptsne fit wrote")
    command.add_argument("table", type=Path, help=f"{TABLE_HELP}, with the columns of the model")
