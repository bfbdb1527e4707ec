"""What pydantic makes of annotations; it is imported with the first handler that needs it."""

from typing import Any

from app.loading.annotations import AnnotationError, show

MAX_LISTED = 50_000
"""How many faults pydantic is asked to list; it lists all or none, at 1 KB each."""


def adapter_of(annotation: Any) -> Any:
    """Return the `pydantic.TypeAdapter` of an annotation, with its core schema made.

    Raises:
        AnnotationError: pydantic can make none of it, or is not installed.
    """
    try:
        import pydantic  # not before it is needed: it takes some 100 ms
        import pydantic_core
    except ImportError:
        raise AnnotationError(
            f"{show(annotation)}, for which pydantic has to be installed"
        ) from None
    try:
        adapter: Any = pydantic.TypeAdapter(annotation)
        _ = adapter.core_schema
    except (
        pydantic.PydanticUserError,
        pydantic_core.SchemaError,
        TypeError,
        NameError,
        AttributeError,
    ) as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise AnnotationError(f"{show(annotation)}, of which pydantic says: {reason}") from None
    return adapter


_NO_SCHEMAS = frozenset(("config", "default", "expected", "members", "metadata", "serialization"))
"""What a core schema has under these names is data, or nothing that validates."""


def stopping_validator(adapter: Any) -> Any:
    """Return what validates as an adapter does, and each list in it to its first fault alone.

    So it is with tuples, sets and, as far as pydantic can, mappings. It is the adapter itself
    where there are none.
    """
    from pydantic_core import SchemaValidator, core_schema

    kinds = {
        "list": core_schema.ListSchema,
        "tuple": core_schema.TupleSchema,
        "set": core_schema.SetSchema,
        "frozenset": core_schema.FrozenSetSchema,
        "dict": core_schema.DictSchema,
    }
    stoppable = {name for name, kind in kinds.items() if "fail_fast" in kind.__annotations__}

    def stopping(item: Any) -> Any:
        if type(item) is dict:
            kind = item.get("type")
            is_schema = type(kind) is str  # else it may be the fields of a model, by name
            anew = {
                key: value if is_schema and key in _NO_SCHEMAS else stopping(value)
                for key, value in item.items()
            }
            if is_schema and kind in stoppable:
                anew["fail_fast"] = True
            return anew if anew != item else item
        if type(item) in (list, tuple):
            return type(item)(map(stopping, item))
        return item

    schema = stopping(adapter.core_schema)
    if schema is adapter.core_schema:
        return adapter
    # A model's own validator, which pydantic would take instead of its schema, stops nowhere.
    return SchemaValidator(schema, _use_prebuilt=False)


def errors_of(error: Any) -> list[Any]:
    """Return what a `pydantic.ValidationError` lists; one entry where that is too much."""
    count = error.error_count()
    if count > MAX_LISTED:
        said = f"{count:,} faults, too many to name"
        return [{"type": "too_many_faults", "loc": (), "msg": said}]
    found: list[Any] = error.errors(include_url=False, include_context=False, include_input=False)
    return found


def sentence(message: str) -> str:
    """Return a message of pydantic's as part of a sentence."""
    return message[:1].lower() + message[1:].removesuffix(".")
