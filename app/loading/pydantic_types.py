"""What pydantic makes of annotations; it is imported with the first handler that needs it."""

from collections.abc import Callable
from typing import Any

from app.loading.annotations import AnnotationError, show
from app.loading.core_schemas import bounded_schema, constraint_fault, validator_of

MAX_LISTED = 50_000
"""How many faults pydantic is asked to list; it lists all or none, at 1 KB each."""


TOO_DEEP = "whose parts are nested too deep to be read, expected some dozens of levels at most"
"""What is wrong with a type that Python's limit of recursion does not let anybody walk through."""

TOO_LARGE = "a value is larger than its type can be"
"""Why a value does not fit where pydantic raises OverflowError, as of `-P999999999DT1S`."""


class UnknownTypeError(AnnotationError):
    """An annotation holds a class that pydantic knows nothing of."""


def adapter_of(annotation: Any) -> Any:
    """Return the `pydantic.TypeAdapter` of an annotation, with its core schema made.

    Raises:
        AnnotationError: pydantic can make none of it, or would fail with each value; or it is not
            installed.
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
        if not adapter.pydantic_complete:  # a name in it was unknown, which may be known by now
            adapter.rebuild(force=True, _types_namespace={})
        schema = bounded_schema(adapter.core_schema)
        if schema is not adapter.core_schema:
            adapter.core_schema = schema
            adapter.validator = validator_of(schema)
    except (
        pydantic.PydanticUserError,
        pydantic_core.SchemaError,
        TypeError,
        NameError,
        AttributeError,
        ImportError,
    ) as error:
        said = str(error).partition("\n\nFor further information")[0]
        reason = " ".join(said.split()).partition(". ")[0].rstrip(".")
        unknown = getattr(error, "code", "") == "schema-for-unknown-type"
        kind = UnknownTypeError if unknown else AnnotationError
        raise kind(f"{show(annotation)}, of which pydantic says: {reason}") from None
    except RecursionError:
        raise AnnotationError(f"{show(annotation)}, {TOO_DEEP}") from None
    if fault := constraint_fault(schema):
        raise AnnotationError(f"{show(annotation)}, of which pydantic says: {fault}")
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
    choices = [written, *written.get("anyOf", ()), *written.get("oneOf", ())]
    if all(each.get("type") not in _TEXTS for each in choices):
        return None
    validate = adapter.validate_strings

    def make(text: str) -> Any:
        try:
            return validate(text)
        except OverflowError:
            raise ValueError(TOO_LARGE) from None

    return make


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
