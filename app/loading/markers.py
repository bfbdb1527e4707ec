"""What says where a parameter of a handler comes from, or as what an answer is sent."""

import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

from app.loading.annotations import AnnotationError, all_extras_of, extras_of, parts_of
from app.loading.pydantic_types import adapter_of
from app.loading.request_faults import Where
from app.plugin import Cookie, Form, Header, Produces, Query

Marker = Query | Header | Cookie | Form
MARKERS = (Query, Header, Cookie, Form)
"""The classes whose objects say where a parameter comes from."""

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A header's name (RFC 9110, 5.6.2), or a cookie's (RFC 6265, 4.1.1)."""

_FIELDS = "pydantic.fields"
_FASTAPI = "fastapi.params"
"""The modules of the classes of what may stand in `Annotated`, or be a default, by mistake."""


def is_marker(extra: Any) -> bool:
    """Tell whether what `Annotated` adds says where a parameter comes from."""
    return extra in MARKERS if isinstance(extra, type) else isinstance(extra, MARKERS)


def marker_of(annotation: Any) -> Marker | None:
    """Return what an `Annotated` says of where a parameter comes from, None if it says nothing."""
    for extra in extras_of(annotation):
        if is_marker(extra):
            # The class itself, too, as `Annotated[str, Header]`.
            marker: Marker = extra() if isinstance(extra, type) else extra
            return marker
    return None


def source_of(parameter: str, marker: Marker | None) -> tuple[Where, str]:
    """Return where a handler's parameter comes from, and what it is called there.

    Args:
        parameter: its name.
        marker: what says where it comes from, None for the query.
    """
    if isinstance(marker, Header):
        return "header", marker.name or parameter.replace("_", "-")
    if isinstance(marker, Cookie):
        return "cookie", marker.name or parameter
    if isinstance(marker, Form):
        return "form", marker.name or parameter
    return "query", (marker.name if marker else "") or parameter


def _name_fault(parameter: str, marker: Marker | None) -> str | None:
    """Return why no request can have a value under the name that is looked for, None if one can."""
    where, name = source_of(parameter, marker)
    if not isinstance(name, str):
        return f"is the {where} value {name!r}, expected a text as its name"
    if where == "header" and "_" in name:
        shown = name.replace("_", "-")
        return f"is the header {name!r}, which no request can have here, expected {shown!r}"
    if where in ("header", "cookie") and not _TOKEN.fullmatch(name):
        return (
            f"is the {where} {name!r}, which no request can have, expected letters, digits and "
            "!#$%&'*+-.^_`|~ in its name"
        )
    return None


def parameter_fault(parameter: inspect.Parameter) -> str | None:
    """Return why a handler's parameter cannot be filled as it is written, None if it can be."""
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return "is positional-only, expected one with a name"
    default, annotation = parameter.default, parameter.annotation
    if is_marker(default) or _module(default) == _FIELDS:
        called = _called(default)
        return f"has {called}(…) as its default, expected it in Annotated[…, {called}(…)]"
    extras = extras_of(annotation)
    foreign = [extra for extra in (default, *extras) if _module(extra) == _FASTAPI]
    if foreign:
        return f"has FastAPI's {_called(foreign[0])}(…), expected what app.plugin has for it"
    if sum(map(is_marker, extras)) > 1:
        return "is annotated with several places that it comes from, expected one"
    if (fault := _name_fault(parameter.name, marker_of(annotation))) is not None:
        return fault
    inner = next(filter(is_marker, _inner_extras(annotation, extras)), None)
    if inner is not None:
        called = _called(inner)
        return (
            f"has {called}(…) within its type, expected Annotated[…, {called}(…)] around all of it"
        )
    for extra in extras:
        if _module(extra) == _FIELDS and not extra.is_required():
            return "has a Field with a default, expected the default as '= …'"
        if _module(extra) == _FIELDS and (extra.alias or extra.validation_alias):
            return "has a Field with an alias, expected the name in Query(…), Header(…) or the like"
    return None


def produces_of(annotation: Any) -> tuple[str, ...]:
    """Return the media types that a handler's return annotation names, none if it says nothing."""
    extras = extras_of(annotation)
    return next((e.media_types for e in extras if isinstance(e, Produces)), ())


def returns_fault(annotation: Any) -> str | None:
    """Return why what a handler says it returns cannot be followed, None if it can be."""
    extras = extras_of(annotation)
    said = [extra for extra in (annotation, *extras) if _is_produces(extra)]
    inner = any(map(_is_produces, _inner_extras(annotation, extras)))
    usable = [extra for extra in said if isinstance(extra, Produces) and extra.media_types]
    if not inner and (not said or (said == usable and annotation not in said and len(said) == 1)):
        return _model_fault(annotation)
    return "it returns something else than Annotated[…, Produces(…)], with one Produces around all"


def _model_fault(annotation: Any) -> str | None:
    """Return why no object can be made of a model in an annotation, None if all can be."""
    for part in parts_of(annotation):
        if isinstance(part, type) and vars(part).get("__pydantic_complete__") is False:
            try:
                adapter_of(part)
            except AnnotationError as error:
                return f"it returns {error}"
    return None


def _is_produces(extra: Any) -> bool:
    return extra is Produces or isinstance(extra, Produces)


def _inner_extras(annotation: Any, outer: tuple[Any, ...]) -> Iterator[Any]:
    """Return what is said within an annotation, and not of all of it."""
    return itertools.islice(all_extras_of(annotation), len(outer), None)


def _module(value: Any) -> str:
    return str(type(value).__module__)


def _called(value: Any) -> str:
    name: str = value.__name__ if isinstance(value, type) else type(value).__name__
    return name.removesuffix("Info")
