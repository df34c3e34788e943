"""A saved map as an ONNX file."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptsne.cli.tables import TableError
from ptsne.estimator import ParametricTSNE

OUTPUTS = "y, the places (N, {})"
EXPORTERS = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
"""Loggers of what writes the graph."""
MORE_OUTPUTS = ", weight and bias, so that y = weight @ x + bias"


def write(options: argparse.Namespace) -> None:
    """Write a model as an ONNX file.

    Parameters
    ----------
    options : Namespace
        From the command line.

    Raises
    ------
    TableError
        If there is no such model, or onnx is not installed.
    """
    if not options.model.exists():
        raise TableError(f"{options.model}: there is no such model; ptsne fit writes one")
    map_ = ParametricTSNE.load(options.model)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet_exporter():
            map_.to_onnx(
                options.output, with_explanation=options.with_explanation, dtype=options.precision
            )
    except ImportError as error:
        raise TableError(str(error)) from error
    more = MORE_OUTPUTS if options.with_explanation else ""
    print(f"wrote {options.output}: input x (N, {map_.n_features_in_}) of {options.precision}, any")
    print(f"number of rows; output {OUTPUTS.format(map_.n_components)}{more}")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Only errors of torch's exporter: it warns of operators that no map has."""
    loggers = [logging.getLogger(name) for name in EXPORTERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Parameters
    ----------
    command : ArgumentParser
        To add them to.
    """
    option = command.add_argument
    option("model", type=Path, help="what ptsne fit wrote")
    option("-o", "--output", type=Path, required=True, metavar="ONNX", help="file to write")
    option("--with-explanation", action="store_true", help="also W and b of each row")
    option(
        "--precision",
        choices=["float32", "float64"],
        default="float32",
        help="of the numbers that go in and come out (default: float32)",
    )
