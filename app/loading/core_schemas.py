"""Core schemas, by which pydantic validates: what is wrong with them, and what is added to them.

A float is finite, as in all JSON, unless its type says otherwise: pydantic's own takes "inf", of
which no answer can be made. A Decimal is as large as a float at most.
"""

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterator
from typing import Any


def bounded_schema(schema: Any) -> Any:
    """Return a core schema whose numbers have bounds where it does not say otherwise.

    What is to be iterated over is checked as a list before: pydantic would check each item as the
    handler comes to it, and what does not fit would be the handler's error.
    """
    return with_keys(schema, _bounded)


def stopping_validator(adapter: Any) -> Any:
    """Return what validates as an adapter does, and each list in it to its first fault alone.

    So it is with tuples, sets and, as far as pydantic can, mappings. It is the adapter's own
    validator where there are none.
    """
    from pydantic_core import core_schema

    kinds = {
        "list": core_schema.ListSchema,
        "tuple": core_schema.TupleSchema,
        "set": core_schema.SetSchema,
        "frozenset": core_schema.FrozenSetSchema,
        "dict": core_schema.DictSchema,
    }
    stoppable = {name for name, kind in kinds.items() if "fail_fast" in kind.__annotations__}

    def stopping(schema: dict[str, Any], _config: dict[str, Any]) -> dict[str, Any]:
        return {"fail_fast": True} if schema["type"] in stoppable else {}

    schema = with_keys(adapter.core_schema, stopping)
    return adapter.validator if schema is adapter.core_schema else validator_of(schema)


def says_extra(schema: Any) -> bool:
    """Tell whether a model somewhere in a core schema says what becomes of unknown fields."""
    return any(
        not _EXTRA.isdisjoint(item) and item != {**item, **_TYPED_DICT}
        for part in schemas_in(schema)
        for item in (part, part.get("config") or {})
    )


def takes_infinite(schema: Any) -> bool:
    """Tell whether infinite numbers pass a core schema: as such, or where anything may stand.

    Most models have a type for each part, and a float that is finite refuses them itself.
    """
    return any(
        part["type"] not in _STRICT
        or (part["type"] == "float" and part.get("allow_inf_nan") is not False)
        or not _PARTS.get(part["type"], frozenset()) <= part.keys()
        or "allow" in {part.get("extra_behavior"), (part.get("config") or {}).get(_EXTRA_FIELDS)}
        for part in schemas_in(schema)
    )


def constraint_fault(schema: Any) -> str | None:
    """Return which constraint in a core schema cannot be applied to its type, None if all can be.

    Pydantic finds that out with the first value: a `min_length` of a number, say.
    """
    for outer in schemas_in(schema):
        steps = outer.get("steps", [outer]) if outer["type"] == "chain" else [outer]
        for step in steps:
            check = _own_check(step)
            if check is None:
                continue
            for kind in kinds_of(outer):
                try:
                    if kind in _SAMPLES:
                        check(_SAMPLES[kind]())
                except TypeError as error:
                    return str(error)
                except ValueError:
                    continue  # it can be applied, and is not kept
    return None


def _own_check(schema: dict[str, Any]) -> Callable[[Any], Any] | None:
    """Return what checks a constraint, None where that is no function of pydantic's own."""
    function: Any = (schema.get("function") or {}).get("function")
    if getattr(getattr(function, "func", None), "__module__", "") == _VALIDATORS:
        check: Callable[[Any], Any] = function
        return check
    if getattr(function, "__name__", "") == _OF_ANOTHER and schema["type"] == "function-wrap":
        validate = validator_of(schema["schema"]).validate_python
        return lambda value: function(value, validate)
    return None


def schemas_in(item: Any) -> Iterator[dict[str, Any]]:
    """Yield each schema in a core schema, once."""
    waiting, seen = [item], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if type(part) in (list, tuple):
            waiting += part
        elif type(part) is dict:
            is_schema = type(part.get("type")) is str
            if is_schema:
                yield part
            waiting += [v for k, v in part.items() if not (is_schema and k in _NO_SCHEMAS)]


def kinds_of(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the types of the values that come out of a schema's innermost ones."""
    if schema["type"] == "chain":
        yield from kinds_of(schema["steps"][0])
    elif schema["type"] == "union":
        for choice in choices_of(schema):
            yield from kinds_of(choice)
    elif schema["type"] in ("function-after", "nullable", "default"):
        yield from kinds_of(schema["schema"])
    else:
        yield schema["type"]


_EXTRA_FIELDS = "extra_fields_behavior"
_EXTRA = frozenset((_EXTRA_FIELDS, "extra_behavior"))
"""What pydantic's core schema has where a model says itself what becomes of unknown fields."""

_TYPED_DICT = {"type": "typed-dict", "extra_behavior": "ignore"}
"""What it has for each TypedDict that says nothing of unknown fields."""

_STRICT = frozenset(
    (
        *("none", "bool", "int", "float", "decimal", "str", "date", "time", "datetime"),
        *("timedelta", "literal", "enum", "uuid", "url", "multi-host-url"),
        *("list", "tuple", "set", "frozenset", "dict", "function-after"),
        *("nullable", "default", "union", "tagged-union", "definitions", "definition-ref"),
        *("model", "model-fields", "model-field", "typed-dict", "typed-dict-field"),
        *("dataclass", "dataclass-args", "dataclass-field"),
    )
)
"""The schemas of what is of a type, or consists of parts that have their own."""

_PARTS = {
    "list": frozenset(["items_schema"]),
    "set": frozenset(["items_schema"]),
    "frozenset": frozenset(["items_schema"]),
    "dict": frozenset(["keys_schema", "values_schema"]),
}
"""The parts without which some of them take anything."""

_VALIDATORS = "pydantic._internal._validators"
_OF_ANOTHER = "_apply_constraint_with_incompatibility_info"
"""The module, and the name, of what pydantic checks a constraint with that a type does not have."""


def choices_of(union: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas of a union, of which some stand beside a label."""
    return [choice[0] if type(choice) is tuple else choice for choice in union["choices"]]


_SAMPLES: dict[str, Callable[[], Any]] = {
    **{kind.__name__: kind for kind in (int, float, bool, str, bytes)},
    **{kind.__name__: kind for kind in (list, tuple, set, frozenset, dict)},
    "decimal": decimal.Decimal,
    "uuid": lambda: uuid.UUID(int=0),
    "date": lambda: datetime.date.min,
    "time": datetime.time,
    "datetime": lambda: datetime.datetime.min,
    "timedelta": datetime.timedelta,
}
"""Make a value of each type that no code of a plugin stands behind."""


def _bounded(schema: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return what a schema does not say: that a number is finite, that what comes is a list."""
    if schema["type"] == "generator":  # of an Iterable
        items = {key: value for key, value in schema.items() if key != "ref"}
        function = {"type": "no-info", "function": iter}
        return {"type": "function-after", "function": function, "schema": items | {"type": "list"}}
    if schema["type"] not in ("float", "decimal"):
        return {}
    says = {**config, **schema}
    if schema["type"] == "float":
        return {} if "allow_inf_nan" in says else {"allow_inf_nan": False}
    return {} if says.get("allow_inf_nan") else {**_DECIMAL, **schema}


MAX_PLACES = 1000
"""How many digits a Decimal may have after the point."""

_DECIMAL = {
    "lt": decimal.Decimal("1E+309"),
    "gt": decimal.Decimal("-1E+309"),
    "decimal_places": MAX_PLACES,
}
"""The bounds of a Decimal, as in a path: `int` or `:f` of `1e99999999` would take for ever."""


def validator_of(schema: Any) -> Any:
    """Return what validates by a core schema."""
    from pydantic_core import SchemaValidator

    # Else a model's own validator would be taken instead of its schema.
    return SchemaValidator(schema, _use_prebuilt=False)


_NO_SCHEMAS = frozenset(
    ("config", "default", "expected", "function", "members", "metadata", "serialization")
)
"""What a core schema has under these names is data, or nothing that validates."""

MoreKeys = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Returns what else a schema is to say, given it and the configuration of the model around it."""


def with_keys(
    item: Any, more: MoreKeys, config: Any = None, *, closed: frozenset[str] = frozenset()
) -> Any:
    """Return a core schema, or a part of one, in which each schema says more; itself if none does.

    Args:
        item: the part.
        more: returns what else a schema in it says.
        config: the configuration of the model around it.
        closed: the types of the schemas that stay as they are, with all that is in them.
    """
    if type(item) in (list, tuple):
        anew = type(item)(with_keys(part, more, config, closed=closed) for part in item)
    elif type(item) is not dict:
        return item
    elif type(item.get("type")) is str:
        if item["type"] in closed:
            return item
        config = item.get("config") or config
        kept = {
            key: part if key in _NO_SCHEMAS else with_keys(part, more, config, closed=closed)
            for key, part in item.items()
        }
        anew = kept | more(kept, config or {})
    else:  # the fields of a model, by name
        anew = {name: with_keys(part, more, config, closed=closed) for name, part in item.items()}
    return anew if anew != item else item
