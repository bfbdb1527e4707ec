"""The admin API from outside: one call, and its answer or a sentence."""

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, TypeVar

from app.cli.target import Target
from app.cli.terminal import place_of, plain
from app.errors import BenanaError, SettingsError
from app.settings import Settings

TIMEOUT_SECONDS = 60.0
"""Longer than any reload takes: the server gives up on a trial after 25 s."""

T = TypeVar("T", list[dict[str, Any]], dict[str, Any])


class ApiError(BenanaError):
    """The admin API refuses a call, or cannot be reached; the message is one sentence.

    `status` is the HTTP status of a refusal, None where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NobodyAnswersError(ApiError):
    """There is no server where it is called."""


def call(
    settings: Settings,
    method: str,
    path: str,
    expected: type[T],
    seconds: float = TIMEOUT_SECONDS,
) -> T:
    """Call the admin API of the server that the settings name.

    Args:
        settings: where the server is, and its token.
        method: the HTTP method.
        path: the path, already quoted.
        expected: what the JSON answer is: `list` (of objects) or `dict`.
        seconds: how long to wait for the answer.

    Raises:
        ApiError: the server cannot be reached, refuses, or is no Benana.
        SettingsError: the admin token cannot be sent, or the server's URL or CA not be used.
    """
    target = Target.of(settings)
    shown = target.shown
    headers: dict[str, str | bytes] = {"Accept": "application/json"}
    if settings.admin_token:
        if not settings.admin_token.isprintable():
            raise SettingsError("BENANA_ADMIN_TOKEN holds a line break or the like; expected text.")
        # Bytes, because http.client would send text as Latin-1, and the server compares UTF-8.
        headers["Authorization"] = b"Bearer " + settings.admin_token.encode()
    connection = target.connection(seconds)
    try:
        connection.request(method, target.prefix + path, headers=headers)
        response = connection.getresponse()
        raw = response.read()
    except TimeoutError:
        raise ApiError(f"{shown} did not answer within {seconds:.0f} s.") from None
    except (ConnectionRefusedError, FileNotFoundError):
        raise NobodyAnswersError(
            f"Nothing answers at {shown}: start it with `benana serve`, or {target.advice}."
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise ApiError(
            f"The certificate of {shown} is not trusted ({error.verify_message}): name its CA by "
            "--ca FILE or BENANA_CA, or leave the check out by --insecure or BENANA_INSECURE=on."
        ) from None
    except ssl.SSLError as error:
        raise ApiError(
            f"What answers at {shown} does not speak TLS as expected ({error.reason}): call it by "
            "http://, or look at its certificate."
        ) from None
    except OSError as error:
        raise ApiError(
            f"{shown} cannot be called ({error.strerror or error}): look at the server's log, "
            f"or {target.advice}{_if_plain(shown)}."
        ) from None
    except UnicodeError:
        raise ApiError(f"{shown} names a host that cannot be one: {target.advice}.") from None
    except http.client.HTTPException:
        raise ApiError(
            f"What answers at {shown} does not speak HTTP{_if_plain(shown)}; {target.advice}."
        ) from None
    finally:
        connection.close()
    return _answer(target, response.status, raw, expected)


def _if_plain(shown: str) -> str:
    return " (if it speaks TLS, call it by https://)" if shown.startswith("http:") else ""


def _answer(target: Target, status: int, raw: bytes, expected: type[T]) -> T:
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
            f"What answers at {target.shown} is no Benana (status {status}): {target.advice}."
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
