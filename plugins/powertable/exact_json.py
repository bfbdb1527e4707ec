"""JSON whose numbers keep all their digits: a decimal is `Decimal` here, and never a float."""

import json
import re
import secrets
from collections import Counter
from decimal import Decimal, InvalidOperation
from typing import Any

import falcon

from .values import show

# A decimal is written as a text with this around it, which nobody can know, and then unquoted.
_SIGN = secrets.token_hex(16)
_DECIMAL = re.compile(f'"{_SIGN}([-0-9.]+)"')


def read_json(raw: bytes) -> Any:
    """Parse the body of a request.

    Raises:
        falcon.HTTPBadRequest: it is empty or no JSON.
        falcon.HTTPUnprocessableEntity: an object has a key twice; all such are named.
    """
    if not raw.strip():
        raise falcon.HTTPBadRequest(
            title="Missing body", description="This call expects a JSON body; it is empty."
        )
    try:
        text = raw.decode(json.detect_encoding(raw))
        return json.loads(
            text,
            parse_float=_read_decimal,
            parse_constant=_refuse,
            object_pairs_hook=_read_object,
        )
    except RecursionError:
        problem = "it is nested too deep"
    except ValueError as error:
        problem = str(error)
    raise falcon.HTTPBadRequest(
        title="Invalid JSON", description=f"The body is not JSON: {problem}."
    )


def write_json(answer: Any) -> bytes:
    """Return an answer of dict, list, text, numbers, bool and None as JSON."""
    text = json.dumps(
        answer, default=_mark, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return (_DECIMAL.sub(r"\1", text) if _SIGN in text else text).encode()


def numbers_as_text(item: Any) -> Any:
    """Return an answer with its whole numbers and decimals as texts.

    For clients that know doubles alone, which are exact up to 2**53.
    """
    if isinstance(item, dict):
        return {key: numbers_as_text(value) for key, value in item.items()}
    if isinstance(item, list):
        return [numbers_as_text(value) for value in item]
    if isinstance(item, Decimal):
        return f"{item:f}"
    return str(item) if type(item) is int else item


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = ", ".join(show(key) for key in counts if counts[key] > 1)
        raise falcon.HTTPUnprocessableEntity(
            title="Bad values",
            description=f"Found {repeated} twice or more in one object, expected each key once.",
        )
    return found


def _read_decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]} is larger than any number that is known") from None


def _mark(item: object) -> str:
    if isinstance(item, Decimal):
        return f"{_SIGN}{item:f}"
    raise TypeError(f"found a {type(item).__qualname__}, expected what JSON has")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
