"""JSON as RFC 8259 has it, and only as deep as can be used."""

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

MAX_JSON_LEVELS = 200
"""How deep JSON may be nested: who walks it by recursion has 1,000 frames for that."""


def to_utf8(text: str) -> bytes:
    """Encode JSON; lone surrogates, which JSON can escape and UTF-8 cannot hold, are escaped."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def parse_json(raw: bytes) -> Any:
    """Parse JSON as RFC 8259 has it; of members with the same name the last counts.

    Raises:
        ValueError: it is something else; a number has no end or no room; it is nested too deep.
    """
    # Without a loop-hole for the surrogates that UTF-8 does not have, which `json.loads` leaves.
    return _shallow(_STRICT.decode, raw.decode(json.detect_encoding(raw)))


def parse_media(text: str) -> Any:
    """Parse JSON as Falcon's media handler does, within the same bounds as `parse_json`.

    Raises:
        ValueError: as `parse_json`.
    """
    return _shallow(_loads, text)


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


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
