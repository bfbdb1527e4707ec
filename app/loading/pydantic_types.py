"""What pydantic makes of annotations; it is imported with the first handler that needs it.

A float is finite, as in all JSON, unless its type says otherwise: pydantic's own takes "inf", of
which no answer can be made.
"""

from collections.abc import Callable
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
        schema = _with_keys(adapter.core_schema, _finite)
        if schema is not adapter.core_schema:
            adapter.core_schema = schema
            adapter.validator = _validator_of(schema)
    except (
        pydantic.PydanticUserError,
        pydantic_core.SchemaError,
        TypeError,
        NameError,
        AttributeError,
        ImportError,
    ) as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise AnnotationError(f"{show(annotation)}, of which pydantic says: {reason}") from None
    return adapter


_TEXTS = frozenset(("string", "integer", "number", "boolean"))
"""The JSON types of what a text can become."""


def is_of_pydantic(kind: Any) -> bool:
    """Tell whether a type says itself how pydantic makes its values."""
    return isinstance(kind, type) and any(
        "__get_pydantic_core_schema__" in vars(base) for base in kind.__mro__
    )


def text_maker(kind: Any) -> Callable[[str], Any] | None:
    """Return what makes a value of a text, None if no text becomes one.

    What it returns raises ValueError where a text does not fit.

    Raises:
        AnnotationError: pydantic can make nothing of the type.
    """
    adapter = adapter_of(kind)
    import pydantic  # which the adapter has imported

    try:
        written = adapter.json_schema()
    except pydantic.PydanticUserError:
        return None
    make: Callable[[str], Any] = adapter.validate_strings
    return make if written.get("type") in _TEXTS else None


def stopping_validator(adapter: Any) -> Any:
    """Return what validates as an adapter does, and each list in it to its first fault alone.

    So it is with tuples, sets and, as far as pydantic can, mappings. It is the adapter itself
    where there are none.
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

    schema = _with_keys(adapter.core_schema, stopping)
    return adapter if schema is adapter.core_schema else _validator_of(schema)


def _finite(schema: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return what a schema of a float does not say: that it is finite."""
    is_silent = schema["type"] == "float" and "allow_inf_nan" not in {**config, **schema}
    return {"allow_inf_nan": False} if is_silent else {}


def _validator_of(schema: Any) -> Any:
    from pydantic_core import SchemaValidator

    # Else a model's own validator would be taken instead of its schema.
    return SchemaValidator(schema, _use_prebuilt=False)


_NO_SCHEMAS = frozenset(("config", "default", "expected", "members", "metadata", "serialization"))
"""What a core schema has under these names is data, or nothing that validates."""

_MoreKeys = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Returns what else a schema is to say, given it and the configuration of the model around it."""


def _with_keys(item: Any, more: _MoreKeys, config: Any = None) -> Any:
    """Return a core schema, or a part of one, in which each schema says more; itself if none does.

    Args:
        item: the part.
        more: returns what else a schema in it says.
        config: the configuration of the model around it.
    """
    if type(item) in (list, tuple):
        anew = type(item)(_with_keys(part, more, config) for part in item)
    elif type(item) is not dict:
        return item
    elif type(item.get("type")) is str:
        config = item.get("config") or config
        kept = {k: v if k in _NO_SCHEMAS else _with_keys(v, more, config) for k, v in item.items()}
        anew = kept | more(item, config or {})
    else:  # the fields of a model, by name
        anew = {name: _with_keys(part, more, config) for name, part in item.items()}
    return anew if anew != item else item


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
