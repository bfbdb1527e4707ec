"""What pydantic makes of annotations; it is imported with the first handler that needs it."""

from typing import Any

from app.loading.annotations import AnnotationError, show


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


def sentence(message: str) -> str:
    """Return a message of pydantic's as part of a sentence."""
    return message[:1].lower() + message[1:].removesuffix(".")
