"""The admin API from outside: one call, and its answer or a sentence."""

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, TypeVar

from app.errors import BenanaError, SettingsError
from app.settings import Settings
from app.terminal import place_of, plain

TIMEOUT_SECONDS = 60.0
"""Longer than any reload takes: the server gives up on a trial after 25 s."""

T = TypeVar("T", list[dict[str, Any]], dict[str, Any])

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to call, not where to bind


class ApiError(BenanaError):
    """The admin API refuses a call, or cannot be reached; the message is one sentence.

    `status` is the HTTP status of a refusal, None where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NobodyAnswersError(ApiError):
    """There is no server where it is called."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def address_of(bind: str) -> tuple[str, str]:
    """Return where a server that binds so can be called from this machine.

    Args:
        bind: `host:port` or `unix:path`, as in `Settings`.

    Returns:
        The base URL and the path of the unix socket, which is empty for TCP.
    """
    if bind.startswith("unix:"):
        # As gunicorn reads it: `unix:path` or `unix://path`.
        return "http://localhost", bind.removeprefix("unix:").removeprefix("//")
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    host = _ANY_HOST.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", ""


def call(
    settings: Settings,
    method: str,
    path: str,
    expected: type[T],
    seconds: float = TIMEOUT_SECONDS,
) -> T:
    """Call the admin API of the server that the settings bind.

    Args:
        settings: where the server is, and its token.
        method: the HTTP method.
        path: the path, already quoted.
        expected: what the JSON answer is: `list` (of objects) or `dict`.
        seconds: how long to wait for the answer.

    Raises:
        ApiError: the server cannot be reached, refuses, or is no Benana.
        SettingsError: the admin token cannot be sent.
    """
    url, socket_path = address_of(settings.bind)
    shown = settings.bind if socket_path else url
    headers: dict[str, str | bytes] = {"Accept": "application/json"}
    if settings.admin_token:
        if not settings.admin_token.isprintable():
            raise SettingsError("BENANA_ADMIN_TOKEN holds a line break or the like; expected text.")
        # Bytes, because http.client would send text as Latin-1, and the server compares UTF-8.
        headers["Authorization"] = b"Bearer " + settings.admin_token.encode()
    connection = (
        _UnixConnection(socket_path, seconds)
        if socket_path
        else http.client.HTTPConnection(url.removeprefix("http://"), timeout=seconds)
    )
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        raw = response.read()
    except TimeoutError:
        raise ApiError(f"{shown} did not answer within {seconds:.0f} s.") from None
    except (ConnectionRefusedError, FileNotFoundError):
        raise NobodyAnswersError(
            f"Nothing answers at {shown}: start it with `benana serve`, or set BENANA_BIND."
        ) from None
    except OSError as error:
        raise ApiError(
            f"{shown} cannot be called ({error.strerror or error}): look at the server's log, "
            "or set BENANA_BIND."
        ) from None
    except http.client.HTTPException:
        raise ApiError(f"What answers at {shown} does not speak HTTP; set BENANA_BIND.") from None
    finally:
        connection.close()
    return _answer(shown, response.status, raw, expected)


def _answer(shown: str, status: int, raw: bytes, expected: type[T]) -> T:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    if status >= 400 and isinstance(answer, dict) and answer.get("title"):
        raise ApiError(_sentence(answer), status)
    items = answer if isinstance(answer, list) else [answer]
    if (
        status >= 300
        or not isinstance(answer, expected)
        or not all(isinstance(item, dict) for item in items)
    ):
        raise ApiError(
            f"What answers at {shown} is no Benana (status {status}): set BENANA_BIND to where it "
            "is."
        )
    return answer


def _sentence(problem: Mapping[str, Any]) -> str:
    """Return a problem (RFC 9457) as a sentence, with what only its members say."""
    detail = str(problem.get("detail") or problem["title"])
    notes = []
    error = problem.get("error")
    if isinstance(error, dict):
        phase, place = str(error.get("phase") or ""), place_of(error)
        if f"{phase} failed" not in detail:
            notes.append(phase)
        if place not in detail:
            notes.append(place)
    if problem.get("error_id"):
        notes.append(str(problem["error_id"]))
    note = ", ".join(filter(None, notes))
    return plain(f"{detail} ({note})" if note else detail)
