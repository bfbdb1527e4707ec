"""Parameters of a handler that a form fills: its fields, its files, or all of it as one value."""

import contextlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from app.loading.annotations import AnnotationError, members, show, without_qualifiers
from app.loading.constraints import is_json_text
from app.loading.core_schemas import kinds_of, says_extra, validator_of
from app.loading.field_types import MANY, field_converter
from app.loading.form_texts import textual_schema, unfit_field
from app.loading.forms import FormData, SkippedFile
from app.loading.handler_signature import REQUIRED
from app.loading.markers import marker_of
from app.loading.pydantic_types import TOO_LARGE, adapter_of, errors_of
from app.loading.request_faults import ValueFault
from app.loading.request_values import RequestValue, origin_of, request_value
from app.loading.typed_body import BodyFaults, faults_of
from app.plugin import Form
from app.uploads import File

MakeOfForm = Callable[[FormData], Any]
"""Makes one value of a whole form; raises `BodyFaults`."""

_NO_OBJECTS = frozenset(
    (
        *("none", "bool", "int", "float", "decimal", "complex", "str", "bytes", "literal", "enum"),
        *("date", "time", "datetime", "timedelta", "uuid", "url", "multi-host-url"),
        *("list", "tuple", "set", "frozenset", "generator", "callable"),
    )
)
"""The core schemas of what no fields with names become."""

_NO_FILE = "found a file, expected text"


def is_file(annotation: Any) -> bool:
    """Tell whether an annotation is a file, or several."""
    return _items(annotation)[0] == [File]


def file_limit(annotation: Any) -> int:
    """Return how many bytes the files of a parameter may have, 0 where it does not say."""
    marker = marker_of(annotation)
    return marker.max_bytes if isinstance(marker, Form) else 0


def form_value(name: str, annotation: Any, default: Any) -> RequestValue | None:
    """Return how a form's field or file fills a parameter, None if it takes the whole form.

    Args:
        name: the parameter's.
        annotation: its annotation.
        default: its default, `REQUIRED` if it has none.

    Raises:
        AnnotationError: `Form` says how large a file may be, and it is none; or it is a file or
            something else.
    """
    _check_files(annotation)
    if is_file(annotation):
        return _file_value(name, annotation, default)
    if file_limit(annotation):
        raise AnnotationError(f"{show(annotation)}, expected a File where max_bytes is said")
    try:
        found = request_value(name, annotation, default)
    except AnnotationError:
        return None
    if found is None:
        return None
    read = found.read

    def read_text(values: Any) -> Any:
        if any(isinstance(each, SkippedFile) for each in _listed(values)):
            raise ValueError(_NO_FILE)
        return read(values)

    finder = _find(found.name, blank=_takes_blank(annotation))
    return replace(found, find=finder, read=read_text, convert=None, is_text=False)


def form_maker(annotation: Any, default: Any, others: set[str]) -> MakeOfForm:
    """Return what makes a parameter's value of all of a form but what other parameters take.

    A field that the type does not have is refused, unless a model in it says otherwise (`extra`).

    Args:
        annotation: the parameter's annotation, which pydantic knows.
        default: its default, where nothing comes; `REQUIRED` if it has none.
        others: what other parameters are filled with; added to until the first request.

    Raises:
        AnnotationError: pydantic can make none of it.
    """
    adapter = adapter_of(annotation)
    if _NO_OBJECTS.issuperset(kinds_of(adapter.core_schema)):
        raise AnnotationError(
            f"{show(annotation)}, expected what a field's text becomes, a File, or a type of all "
            "of the form: a model, a dataclass, a dict"
        )
    if unfit := unfit_field(adapter.core_schema):
        raise AnnotationError(
            f"{show(annotation)}, whose field {unfit!r} no text becomes; expected of each field "
            "that it is text, what a text becomes, several of those, a File, a pydantic.Json, or "
            "that it has a default"
        )
    import pydantic  # which the adapter has imported

    extra: Any = None if says_extra(adapter.core_schema) else "forbid"
    fields = _fields_of(annotation)
    schema = textual_schema(adapter.core_schema)
    is_own = schema is not adapter.core_schema
    validate = (validator_of(schema) if is_own else adapter).validate_python

    def make(form: FormData) -> Any:
        given, faults = {}, []
        for name, found in form.items():
            if name in others:
                continue
            values = _listed(found)
            if any(isinstance(each, SkippedFile) for each in values):
                faults.append(ValueFault(name, _NO_FILE, "form"))
                continue
            field = fields.get(name, _Field(is_many=False, takes_blank=True))
            values = [each for each in values if field.takes_blank or each != ""]
            if values:
                given[name] = values if field.is_many or len(values) > 1 else values[0]
        if not given and not faults and default is not REQUIRED:
            return default
        try:
            made = validate(given, extra=extra)
        except pydantic.ValidationError as error:
            faults += faults_of(errors_of(error), "form")
        except OverflowError:
            faults.append(ValueFault("form", TOO_LARGE, "form"))
        if faults:
            raise BodyFaults(faults)
        return made

    return make


def _file_value(name: str, annotation: Any, default: Any) -> RequestValue:
    collect = _items(annotation)[1]
    marker = marker_of(annotation)
    called = (marker.name if marker is not None else "") or name

    def read(values: Any) -> Any:
        listed = _listed(values)
        if not all(isinstance(each, File) for each in listed):
            raise ValueError("found text, expected a file, as multipart/form-data has it")
        if collect is not None:
            return collect(listed)
        if len(listed) > 1:
            raise ValueError(f"found {len(listed)} files, expected one")
        return listed[0]

    finder = _find(called, blank=True)
    return RequestValue(name, "form", called, default, finder, read, None, is_text=False)


def _find(name: str, *, blank: bool) -> Callable[[Any], Any]:
    """Return what looks a name up in a form.

    Args:
        name: what is looked for.
        blank: whether an empty text counts; a browser sends one for each field without an entry.
    """
    if blank:
        return lambda form: form.get(name)

    def find(form: FormData) -> Any:
        found = form.get(name)
        if type(found) is list:
            return [each for each in found if each != ""] or None
        return None if found == "" else found

    return find


def _takes_blank(annotation: Any) -> bool:
    """Tell whether an empty text can become a value of what an annotation says."""
    if is_json_text(annotation):
        return False
    for kind in _items(annotation)[0]:
        try:
            convert = field_converter(kind)
        except AnnotationError:
            return True
        if convert is None:
            return True
        with contextlib.suppress(ValueError):
            convert("")
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Field:
    """What a field of a type takes: several values, an empty one, files of how many bytes."""

    is_many: bool
    takes_blank: bool
    is_file: bool = False
    max_bytes: int = 0


def files_of(annotation: Any) -> dict[str, int]:
    """Return the files of a type that takes all of a form, each with its limit or 0."""
    fields = _fields_of(annotation)
    return {name: field.max_bytes for name, field in fields.items() if field.is_file}


def _fields_of(annotation: Any) -> dict[str, _Field]:
    """Return what the fields of a type take, by the names that a form has for them."""
    found = {}
    for kind in members(annotation):
        owner = typing.get_origin(kind) or kind
        models: dict[str, Any] = getattr(owner, "model_fields", {})
        try:
            hints = (
                typing.get_type_hints(owner, include_extras=True) if inspect.isclass(owner) else {}
            )
        except (NameError, TypeError):
            hints = {}
        for name, hint in hints.items():
            hint = without_qualifiers(hint)
            try:
                _check_files(hint)
            except AnnotationError as error:
                raise AnnotationError(
                    f"{show(annotation)}, whose field {name!r} is annotated {error}"
                ) from None
            alias = getattr(models.get(name), "validation_alias", None)
            called = alias if isinstance(alias, str) else name
            found[called] = _Field(
                _is_many(hint), _takes_blank(hint), is_file(hint), file_limit(hint)
            )
    return found


def _check_files(annotation: Any) -> None:
    """Refuse what is a file or something else.

    Raises:
        AnnotationError: it is.
    """
    kinds = _items(annotation)[0]
    if any(File in _items(kind)[0] for kind in kinds) and kinds != [File]:
        raise AnnotationError(f"{show(annotation)}, expected a File alone, or list[File]")


def _is_many(annotation: Any) -> bool:
    return not is_json_text(annotation) and _items(annotation)[1] is not None


def _items(annotation: Any) -> tuple[list[Any], Callable[..., Any] | None]:
    """Return the types of one value, without None, and what collects several, None if one comes."""
    kinds = [kind for kind in members(annotation) if kind is not type(None)]
    if len(kinds) != 1 or origin_of(kinds[0]) not in MANY:
        return kinds, None
    items = [item for item in typing.get_args(kinds[0]) if item is not ...] or [str]
    inner = [kind for item in items for kind in members(item) if kind is not type(None)]
    return inner, MANY[origin_of(kinds[0])]


def _listed(found: Any) -> list[Any]:
    return found if type(found) is list else [found]
