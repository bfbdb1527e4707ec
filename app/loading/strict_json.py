"""JSON as RFC 8259 defines it: written, and read only as deep as code can walk it."""

import dataclasses
import datetime
import decimal
import enum
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable
from json import loads
from typing import Any

from app.responses import Answer, Event

MAX_JSON_LEVELS = 200
"""How deep JSON may be nested: code that walks it by recursion has 1,000 frames."""


def to_utf8(text: str) -> bytes:
    """Encode JSON text as UTF-8; a lone surrogate, which UTF-8 cannot hold, is escaped."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub(
            "[\ud800-\udfff]", lambda surrogate: f"\\u{ord(surrogate[0]):04x}", text
        ).encode()


def to_json(answer: Any) -> bytes:
    """Return a handler's answer as JSON.

    Takes dict, list, tuple, str, numbers, bool, None, dataclasses, models of pydantic's, and inside
    them dates, UUIDs, decimals (as strings), enumerations (by value) and sets.

    Raises:
        TypeError: the answer holds something else, or an `Answer`, which is no value.
        ValueError: the answer holds NaN or an infinity, which JSON does not have.
    """
    serializer: Any = getattr(type(answer), "__pydantic_serializer__", None)
    if serializer is not None:
        raw: bytes = serializer.to_json(answer, by_alias=True)
        return raw
    return to_utf8(_write(answer))


def _encode(item: object) -> Any:
    model: Any = getattr(type(item), "__pydantic_serializer__", None)
    if model is not None:  # a model, or a dataclass of pydantic's; what it makes is JSON
        return model.to_python(item, mode="json", by_alias=True)
    if isinstance(item, Answer):
        raise TypeError(
            "a handler answered with an Answer within something else, expected it alone: "
            "Answer(value, status, headers), whose value is no Answer"
        )
    if isinstance(item, Event):
        raise TypeError("a handler answered with an Event, which a handler of server.sse yields")
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        # Field by field and not `asdict`, which copies deeply and breaks on locks and the like.
        return {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    if isinstance(item, (datetime.datetime, datetime.date, datetime.time)):
        return item.isoformat()
    if isinstance(item, (uuid.UUID, decimal.Decimal)):
        return str(item)
    if isinstance(item, enum.Enum):
        return item.value
    if isinstance(item, (set, frozenset)):
        return list(item)
    raise TypeError(f"a handler answered with a {type(item).__qualname__}, which is not JSON")


_WRITER = json.JSONEncoder(
    default=_encode, ensure_ascii=False, allow_nan=False, separators=(",", ":")
)
"""Made once: `json.dumps` with other than its defaults makes one for each answer."""


def _make_writer() -> Callable[[Any], str]:
    """Return what writes as `_WRITER` does, at half the cost where answers are small.

    `JSONEncoder.encode` makes an encoder in C at each call, because that notes where it is, to find
    what holds itself. Without such notes one can be used again: what holds itself then is nested
    too deep, and `_WRITER` says what is wrong.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _WRITER.encode
    quote = json.encoder.encode_basestring
    chunks = make(None, _encode, quote, None, ":", ",", False, False, False)

    def write(answer: Any) -> str:
        try:
            return "".join(chunks(answer, 0))
        except RecursionError:
            return _WRITER.encode(answer)

    return write


_write = _make_writer()


def parse_json(raw: bytes) -> Any:
    """Parse JSON as RFC 8259 defines it; of members with the same name the last counts.

    Raises:
        ValueError: it is not JSON, holds a number that is infinite or too large, or is nested too
            deep.
    """
    # Not by `json.loads`, which decodes surrogates that UTF-8 does not have.
    return _shallow(_STRICT.decode, raw.decode(json.detect_encoding(raw)))


def parse_media(text: str) -> Any:
    """Parse JSON as Falcon's media handler does, within the same bounds as `parse_json`.

    Raises:
        ValueError: as `parse_json`.
    """
    return _shallow(_loads, text)


def _loads(text: str) -> Any:
    return loads(text, parse_constant=_no_constant, parse_float=_finite)


def _shallow(parse: Callable[[str], Any], text: str) -> Any:
    too_deep = f"it is nested deeper than {MAX_JSON_LEVELS} levels"
    try:
        value = parse(text)
    except RecursionError:
        raise ValueError(too_deep) from None
    if text.count("[") + text.count("{") > MAX_JSON_LEVELS and _is_deep(value):
        raise ValueError(too_deep)
    return value


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_JSON_LEVELS):
        level = [part for item in level for part in _parts(item) if type(part) in (dict, list)]
        if not level:
            return False
    return True


def _parts(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if type(item) is dict else item


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is larger than any number that is known")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_STRICT = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
