"""The `body` of a handler as a type of its plugin's: checked, and made, by pydantic.

pydantic is imported with the first handler that needs it, and by no worker else.
"""

from collections.abc import Callable
from json import dumps
from typing import Any

from app.loading.core_schemas import says_extra, stopping_validator, takes_infinite
from app.loading.pydantic_types import TOO_LARGE, adapter_of, errors_of, sentence
from app.loading.request_faults import ValueFault, Where
from app.loading.strict_json import parse_json

MAX_FAULTS = 100
"""How many faults of one body or form an answer names."""

MAX_WHOLE = 16 * 1024
"""Up to which size, in bytes, a body is checked to its end; of a larger one, a list or the like is
checked to its first item that does not fit: each byte of it could be a fault that is held."""

_SKETCH = bytes.maketrans(b"123456789EI", b"000000000eN")
"""What is looked at first: which digit it is does not matter, nor which word begins there."""

_BEGIN = ord("N")

_LONG = b"0" * 200
"""So many digits a number that is too large for a float has, without an exponent, at least."""

MakeBody = Callable[[bytes], Any]
"""Makes the value of a body; raises `BodyFaults`, and ValueError where it is no JSON."""


class BodyFaults(Exception):  # noqa: N818 - it carries them
    """A body is JSON and does not fit its type: `faults` says where, and why."""

    def __init__(self, faults: list[ValueFault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = faults


def typed_body(annotation: Any) -> MakeBody:
    """Return what makes a value of an annotation from JSON.

    A field that the type does not have is refused, unless a model in it says otherwise (`extra`).

    Raises:
        AnnotationError: pydantic can make none of it.
    """
    adapter = adapter_of(annotation)
    import pydantic  # which the adapter has imported

    extra = None if says_extra(adapter.core_schema) else "forbid"
    takes_all_numbers = takes_infinite(adapter.core_schema)
    validate = adapter.validator.validate_json
    validate_large = stopping_validator(adapter).validate_json

    def make(raw: bytes) -> Any:
        sketch = raw.translate(_SKETCH)
        if (  # seldom, and told by what costs each body least: `in` takes twice as long as `find`
            _BEGIN in sketch or sketch.find(b"0e") >= 0 or sketch.find(_LONG) >= 0
        ) and _may_be_infinite(raw, sketch, takes_all_numbers):
            parse_json(raw)  # which refuses it: pydantic reads it as a number
        try:
            try:
                return (validate if len(raw) <= MAX_WHOLE else validate_large)(raw, extra=extra)
            except pydantic.ValidationError as error:
                found = errors_of(error)
        except UnicodeEncodeError:  # as of `raise ValueError("\ud800")` in a validator
            reason = "a validator refuses it, with a message that UTF-8 cannot hold"
            raise BodyFaults([ValueFault("body", reason, "body")]) from None
        except OverflowError:
            raise BodyFaults([ValueFault("body", TOO_LARGE, "body")]) from None
        if found[0]["type"] == "json_invalid":
            return make(_in_utf8(raw))
        raise BodyFaults(faults_of(found, "body"))

    return make


def _may_be_infinite(raw: bytes, sketch: bytes, takes_all_numbers: bool) -> bool:
    """Tell whether JSON may hold NaN, an infinity, or a number that is too large for a float."""
    if b"NaN" in raw or b"Infinity" in raw:
        return True
    return takes_all_numbers and (b"0e000" in sketch or b"0e+000" in sketch or _LONG in sketch)


def _in_utf8(raw: bytes) -> bytes:
    """Return JSON in another of its encodings, or what else pydantic does not read, anew.

    Raises:
        ValueError: it is no JSON; the message says where.
    """
    anew = dumps(parse_json(raw)).encode()
    if anew == raw:
        raise ValueError("it cannot be read")
    return anew


def faults_of(errors: list[Any], where: Where) -> list[ValueFault]:
    """Return what pydantic says of a value, as far as an answer names it.

    Args:
        errors: what `errors_of` returned.
        where: in which part of the request the value is.
    """
    return [
        ValueFault(".".join(map(str, each["loc"])) or where, sentence(each["msg"]), where)
        for each in errors[:MAX_FAULTS]
    ]
