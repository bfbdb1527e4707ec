"""The JSON Schemas of what only pydantic knows. Importing this imports pydantic."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pydantic
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaWarningKind
from pydantic_core import PydanticSerializationError, to_jsonable_python

from app.admin.openapi.schemas import FILE, Schema, Use, is_naive, stable_name
from app.inspection import is_class, name_of
from app.loading.annotations import show
from app.loading.openapi_objects import valid_schema
from app.loading.strict_json import to_json
from app.uploads import File

_Input = tuple[int, JsonSchemaMode, "pydantic.TypeAdapter[Any]"]
"""Which of what is wanted it is, what its schema is for, and what makes it."""

_MODES: dict[Use, JsonSchemaMode] = {
    "text": "validation",
    "form": "validation",
    "rest": "validation",
    "body": "validation",
    "answer": "serialization",
}


class _Generator(GenerateJsonSchema):
    """Names components as pydantic does, but the same in each generation of a plugin.

    A default that JSON does not have is left out, and nothing is said of it.
    """

    ignored_warning_kinds: ClassVar[set[JsonSchemaWarningKind]] = {  # type: ignore[misc]
        *GenerateJsonSchema.ignored_warning_kinds,
        "non-serializable-default",
    }

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(stable_name(name))

    def generate_inner(self, schema: Any) -> Schema:
        found = super().generate_inner(schema)
        if self.mode == "serialization":  # as of a SecretStr, which is sent all the same
            found.pop("writeOnly", None)
        return found

    def is_instance_schema(self, schema: Any) -> Schema:
        return dict(FILE) if schema["cls"] is File else super().is_instance_schema(schema)

    def encode_default(self, dft: Any) -> Any:
        if is_naive(dft):
            raise PydanticSerializationError("no offset")
        found = super().encode_default(dft)  # has null for what is infinite, or no number, in it
        try:
            to_json(to_jsonable_python(dft, inf_nan_mode="constants", fallback=lambda _: None))
            to_json(found)
        except (TypeError, ValueError) as error:
            raise PydanticSerializationError(str(error)) from None
        return found


def write_schemas(
    wanted: Sequence[tuple[Any, Use]], prefix: str
) -> tuple[list[Schema], dict[str, Schema], list[str]]:
    """Return the schemas of annotations, the components that they refer to, and what they lack.

    What pydantic cannot describe has an empty schema: anything. A sentence says so of each.

    Args:
        wanted: the annotations, each with where its values stand.
        prefix: what the names of all components begin with.
    """
    inputs: list[_Input] = []
    lacks: list[str] = []
    for number, (annotation, use) in enumerate(wanted):
        with _left_out(annotation, lacks):
            inputs.append((number, _MODES[use], pydantic.TypeAdapter(annotation)))
    if not inputs:
        return [{} for _ in wanted], {}, lacks
    template = f"#/components/schemas/{prefix}{{model}}"
    try:
        found, more = _write(inputs, template)
    except BaseException:  # noqa: BLE001 - some have no schema: those alone are left out
        known = []
        for each in inputs:
            with _left_out(wanted[each[0]][0], lacks):
                _write([each], template)
                known.append(each)
        found, more = _write(known, template)
    by_number = {number: schema for (number, _), schema in found.items()}
    written = [
        valid_schema(by_number.get(number, {}), _shown(annotation), lacks)
        for number, (annotation, _) in enumerate(wanted)
    ]
    components = {
        prefix + name: valid_schema(schema, name, lacks)
        for name, schema in more.get("$defs", {}).items()
    }
    return written, components, lacks


def _shown(annotation: Any) -> str:
    return stable_name(name_of(annotation) if is_class(annotation) else show(annotation))


def _write(inputs: Sequence[_Input], template: str) -> tuple[dict[Any, Schema], Schema]:
    return pydantic.TypeAdapter.json_schemas(
        inputs, ref_template=template, schema_generator=_Generator
    )


@contextlib.contextmanager
def _left_out(annotation: Any, lacks: list[str]) -> Iterator[None]:
    """Have an annotation left out that has no schema, and note that."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - models may bring code of their own for it
        lacks.append(
            f"{_shown(annotation)} cannot be described, as if it were anything: {name_of(error)}"
        )
