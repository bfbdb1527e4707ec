"""JSON as RFC 8259 defines it: written, and read only as deep as code can walk it."""

import collections.abc
import contextlib
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import json
import math
import pathlib
import re
import uuid
from collections.abc import Callable, Iterable
from json import loads
from typing import Any

from app.loading.pydantic_types import is_of_pydantic
from app.responses import Answer, Event

_SCALAR = (str, int, float, type(None))

_SHOWN = (
    uuid.UUID,
    decimal.Decimal,
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)
"""What becomes a string as `str` writes it."""

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

    Takes dict and other mappings, list, tuple, str, numbers, bool, None, dataclasses, models of
    pydantic's, and inside them dates, durations, UUIDs, decimals, paths, IP addresses, URLs and the
    like of pydantic's (as strings), enumerations (by value), sets and deques; all that becomes a
    string or a number may be a key.

    Raises:
        TypeError: the answer holds something else, or an `Answer`, which is no value.
        ValueError: the answer holds NaN or an infinity, which JSON does not have.
    """
    serializer: Any = getattr(type(answer), "__pydantic_serializer__", None)
    if serializer is not None:
        raw: bytes = serializer.to_json(answer, by_alias=True)
        return raw
    try:
        text = _write(answer)
    except TypeError:  # of a key, perhaps: only strings, numbers, bool and None are taken there
        text = _write(_with_plain_keys(answer))
    return to_utf8(text)


def as_plain_json(answer: Any) -> Any:
    """Return an answer as its JSON has it: of dicts, lists, texts, numbers, bool and None.

    Raises:
        TypeError: as `to_json`.
        ValueError: as `to_json`.
    """
    return loads(to_json(answer))


def _with_plain_keys(item: Any) -> Any:
    """Return an answer, made of what JSON has, with keys that JSON has."""
    if isinstance(item, dict):
        return {_key(key): _with_plain_keys(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_with_plain_keys(each) for each in item]
    return item if isinstance(item, _SCALAR) else _with_plain_keys(_encode(item))


def _key(key: Any) -> Any:
    plain = key if isinstance(key, _SCALAR) else _encode(key)
    if not isinstance(plain, _SCALAR):
        raise TypeError(
            f"a handler answered with a dict that has a {type(key).__qualname__} as a key, "
            "expected what becomes text or a number"
        )
    return plain


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
    if isinstance(item, _SHOWN):
        return str(item)
    if isinstance(item, datetime.timedelta):
        return _duration(item)
    if isinstance(item, enum.Enum):
        return item.value
    if isinstance(item, (set, frozenset, collections.deque)):
        return list(item)
    if isinstance(item, collections.abc.Mapping):  # as MappingProxyType, ChainMap
        return dict(item)
    if is_of_pydantic(type(item)):
        import pydantic_core  # which its type has imported

        with contextlib.suppress(pydantic_core.PydanticSerializationError):
            return pydantic_core.to_jsonable_python(item)
    raise TypeError(f"a handler answered with a {type(item).__qualname__}, which is not JSON")


def _duration(span: datetime.timedelta) -> str:
    """Return a duration as ISO 8601 has it, `P1DT2H0.5S`: as pydantic reads and writes it."""
    sign, span = ("-", -span) if span.days < 0 else ("", span)
    minutes, seconds = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    exact = f"{seconds}.{span.microseconds:06}".rstrip("0").rstrip(".")
    parts = ((str(hours), "H"), (str(minutes), "M"), (exact, "S"))
    time = "".join(number + unit for number, unit in parts if number != "0")
    days = f"{span.days}D" if span.days else ""
    return f"{sign}P{days}{'T' if time else ''}{time}" if span else "PT0S"


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
