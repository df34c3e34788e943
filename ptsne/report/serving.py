"""The page served live: the model itself answers for new rows and for contrasts.

Only this computer can ask: the server listens on the loopback address, answers to no other host
name, and takes questions only as JSON, which no other site's page may send here.
"""

import json
import logging
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptsne.estimator import ParametricTSNE
from ptsne.explanation import Explanation
from ptsne.linearize import LinearizationError
from ptsne.report.contents import Contents, Words, named
from ptsne.report.page import page_contents, page_html

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MAX_QUESTION = 20_000_000
"""Bytes of a question."""


class LivePage:
    """What the server answers.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    X : ndarray of shape (N, D)
        Rows of the page.
    content : Contents
        Of the page.
    """

    def __init__(self, model: ParametricTSNE, X: NDArray[Any], content: Contents) -> None:
        self.html = page_html(content, is_live=True)
        self._model = model
        self._X = X
        self._names = content.facts["features"]
        self._baseline = content.arrays["baseline"]
        self._method = "path" if content.facts["engine"] == "atlas" else "paired"
        self._lock = threading.Lock()  # one answer at a time: each takes all cores

    def answer(self, question: str, body: Any) -> dict[str, Any]:
        """Answer a question of the page.

        Parameters
        ----------
        question : {"explain", "contrast"}
            Which one.
        body : object
            What came with it: {"values": [...]}, or {"a": ..., "b": ...} where each is {"row": i}
            or {"values": [...]}.

        Returns
        -------
        dict
            JSON.

        Raises
        ------
        ValueError
            If the body is none of the above, or the question cannot be answered.
        """
        if not isinstance(body, dict):
            raise ValueError("expected an object with the values of a row")
        with self._lock:
            if question == "explain":
                return self._explain(self._row(body))
            return {"shares": self._shares(self._row(body.get("a")), self._row(body.get("b")))}

    def _row(self, reference: Any) -> NDArray[np.float64]:
        """A row of the page, or one of the user's own."""
        if not isinstance(reference, dict) or not reference.keys() & {"row", "values"}:
            raise ValueError("expected the number of a row, or the values of one")
        if "row" in reference:
            i = reference["row"]
            if type(i) is not int or not 0 <= i < len(self._X):
                raise ValueError(f"there is no row {i}; rows go from 0 to {len(self._X) - 1}")
            row: NDArray[np.float64] = self._X[i].astype(np.float64)
            return row
        return self._own_row(reference["values"])

    def _own_row(self, values: Any) -> NDArray[np.float64]:
        n = len(self._names)
        if not isinstance(values, list) or len(values) != n:
            found = len(values) if isinstance(values, list) else type(values).__name__
            raise ValueError(f"a row of this map has {n} values; got {found}")
        for name, value in zip(self._names, values, strict=True):
            if type(value) not in {int, float} or not abs(value) <= sys.float_info.max:
                raise ValueError(f"{name}: expected a finite number; got {value!r:.40}")
        return np.array(values, dtype=np.float64)

    def _shares(self, start: NDArray[np.float64], end: NDArray[np.float64]) -> list[float]:
        shares: list[float] = self._why(end).contrast(start, end, method=self._method).tolist()
        return shares

    def _explain(self, x: NDArray[np.float64]) -> dict[str, Any]:
        """Where a new row lies, what takes it there from the mean row, and how sure that is."""
        why = self._why(x)
        origin = self._model.transform(named(self._model, self._baseline[None]))[0]
        distance = float(np.linalg.norm(why.Y[0] - origin))
        lengths = np.zeros(len(x))
        if distance:
            lengths = distance * why.contrast(self._baseline, x, method=self._method)
        return {
            "place": why.Y[0].tolist(),
            "lengths": lengths.tolist(),
            "distance": distance,
            "notes": notes(why),
        }

    def _why(self, x: NDArray[np.float64]) -> Explanation:
        return self._model.explain(named(self._model, x[None]))


def notes(why: Explanation) -> list[str]:
    """What else there is to say of one explained row: landmarks, trust, exactness.

    Parameters
    ----------
    why : Explanation
        Of one row.

    Returns
    -------
    list of str
        Sentences.
    """
    sentences = []
    if why.n_active[0]:
        held = why.landmarks.weights[0] > 0
        rows = [
            f"{row} ({weight:.0%})"
            for row, weight in zip(
                why.landmarks.indices[0, held], why.landmarks.weights[0, held], strict=True
            )
        ]
        word = "row" if len(rows) == 1 else "rows"
        sentences.append(f"Held by training {word} {', '.join(rows)}, counted from 0.")
    if why.n_active[0] > 1:
        sentences.append("It stands on a boundary between charts of the map.")
    if why.source.calibration is not None:
        percentile = float(why.trust.percentile[0])
        sentences.append(f"Stranger than {percentile:.0f} % of the training rows.")
    sentences.append(f"y = W x + b holds to {why.residual[0]:.0e} of its terms.")
    return sentences


class Server(ThreadingHTTPServer):
    """HTTP on the loopback address.

    Parameters
    ----------
    page : LivePage
        What to answer.
    port : int
        Port; 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, page: LivePage, port: int) -> None:
        self.page = page
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_port}/"


def live_server(
    model: ParametricTSNE, X: Any, y: ArrayLike | None, words: Words, *, port: int
) -> Server:
    """Prepare the page and the server; `serve_forever` starts it.

    Parameters
    ----------
    model : ParametricTSNE
        Fitted.
    X : array-like of shape (N, D)
        Rows.
    y : array-like of shape (N,) or None
        Labels.
    words : Words
        Names.
    port : int
        Port; 0 takes a free one.

    Returns
    -------
    Server
        Bound, and not yet answering.

    Raises
    ------
    OSError
        If the port is taken.
    """
    content = page_contents(model, X, y, words)
    page = LivePage(model, np.asarray(X), content)
    try:
        return Server(page, port)
    except (OSError, OverflowError) as error:
        raise OSError(f"port {port} cannot be used ({error}); name another with --port") from error


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        """Send the page."""
        if not self._is_for_us():
            self._send_json(HTTPStatus.FORBIDDEN, {"error": "this page is for this computer only"})
        elif self.path != "/":
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "there is only one page, at /"})
        else:
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page.html.encode())

    def do_POST(self) -> None:
        """Answer a question."""
        question = self.path.removeprefix("/")
        if not self._is_for_us() or self.headers.get_content_type() != "application/json":
            self._send_json(HTTPStatus.FORBIDDEN, {"error": "questions come as JSON, from here"})
        elif question not in {"explain", "contrast"}:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": f"there is no question {question!r}"})
        else:
            self._answer(question)

    def _answer(self, question: str) -> None:
        try:
            answer = self.server.page.answer(question, self._body())
        except (ValueError, LinearizationError, MemoryError) as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        else:
            self._send_json(HTTPStatus.OK, answer)

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_QUESTION:
            raise ValueError(f"a question has at most {MAX_QUESTION:,} bytes")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"the question is not JSON: {error}") from error

    def _is_for_us(self) -> bool:
        """Whether the browser asked this address by its own name, not by one led here."""
        port = self.server.server_port
        return self.headers.get("Host") in {f"{LOOPBACK}:{port}", f"localhost:{port}"}

    def _send_json(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(answer).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log at debug level only."""
        logger.debug(format, *arguments)
