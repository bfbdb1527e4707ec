"""What the keywords of a route say: how it is described, its status, and Falcon's hooks."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

import falcon

from app.loading.annotations import is_type
from app.loading.falcon_calls import HOOK_AFTER, HOOK_BEFORE, call_fault
from app.loading.openapi_objects import object_fault, scheme_fault
from app.loading.signatures import describe
from app.uri_templates import template_fields

Responder = Callable[..., None]

SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
}
"""The security schemes that have a short name."""

_OPERATION_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SCHEME_NAME = re.compile(r"[A-Za-z0-9_-]+")
_OF_ONE_METHOD = ("operation_id", "status")


class OptionError(ValueError):
    """A keyword of a route cannot be used; the message says what was found and expected."""


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """What a route is given besides its template and its handler.

    `security` is None where nothing is said, and empty where it is said that everybody may call.
    Its keys are names, its values security schemes of OpenAPI. `responses` holds, by status or
    `default`, a text, a type, both, or a response of OpenAPI as it is.
    """

    summary: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    operation_id: str = ""
    deprecated: bool = False
    hidden: bool = False
    status: int | None = None
    responses: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    security: Mapping[str, Mapping[str, Any]] | None = None
    before: tuple[Callable[..., Any], ...] = ()
    after: tuple[Callable[..., Any], ...] = ()

    def around(self, responder: Responder, resource: object, template: str = "") -> Responder:
        """Return a responder that sets the status and runs the hooks around another one.

        Args:
            responder: what answers.
            resource: what the hooks are given as the resource.
            template: the route's, where the responder takes its fields and no more.
        """
        before, after = self.before, self.after
        status = None if self.status is None else falcon.code_to_http_status(self.status)
        if status is None and not before and not after:
            return responder

        def respond(req: falcon.Request, resp: falcon.Response, /, **fields: Any) -> None:
            for hook in before:
                hook(req, resp, resource, fields)
            if status is not None:
                resp.status = status
            try:
                responder(req, resp, **fields)
            except TypeError:
                if template and fields.keys() != template_fields(template).keys():
                    raise TypeError(_other_fields(before, template, fields)) from None
                raise
            for hook in after:
                hook(req, resp, resource)

        return respond


def _other_fields(
    hooks: Sequence[Callable[..., Any]], template: str, fields: Mapping[str, Any]
) -> str:
    """Say that hooks have left other fields than those of a template in `params`."""
    expected = template_fields(template)
    changes = [f"{name!r} was added" for name in fields if name not in expected]
    changes += [f"{name!r} is missing" for name in expected if name not in fields]
    return (
        f"the hook {' or '.join(map(describe, hooks))} of {template} changed which `params` there "
        f"are: {', '.join(changes)}. Expected the fields of the template; what a hook has for the "
        "handler it puts into `req.context`"
    )


class Schemes:
    """The security schemes of a plugin: one stands under each name in its document."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: dict[str, tuple[Mapping[str, Any], str]] = {}

    def checked(self, options: RouteOptions, whose: str) -> RouteOptions:
        """Return the options of a route whose schemes are those of the routes before, or new.

        Args:
            options: the options.
            whose: the route, as sentences name it.

        Raises:
            OptionError: another route has another scheme under one of its names.
        """
        for name, scheme in (options.security or {}).items():
            known, first = self._known.setdefault(name, (scheme, whose))
            if known != scheme:
                raise OptionError(
                    f"the option 'security' has another scheme {name!r} than {first}, expected "
                    "the same, or another name for it"
                )
        return options


NONE = RouteOptions()
"""The options of a route that is given none."""

NAMES = tuple(option.name for option in fields(RouteOptions))


def read_options(given: Mapping[str, Any], *, one_method: bool = True) -> RouteOptions:
    """Return the options that keywords stand for.

    Args:
        given: the keywords.
        one_method: whether they are those of one method, and not of a resource or a group.

    Raises:
        OptionError: one is unknown or cannot be used; all of them are named.
    """
    if not given:
        return NONE
    faults: list[str] = []
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in NAMES:
            faults.append(f"the option {name!r} is unknown, expected one of {', '.join(NAMES)}")
        elif not one_method and name in _OF_ONE_METHOD:
            faults.append(f"the option {name!r} is that of one method, give it to each")
        else:
            try:
                read[name] = _READERS[name](value)
            except OptionError as error:
                faults.append(f"the option {name!r} is {error}")
    if faults:
        raise OptionError("; ".join(faults))
    return RouteOptions(**read)


def merge_options(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of a group and those of what is in it as the keywords of the latter.

    Tags and responses add up; hooks do so in Falcon's order, the group's `before` first and its
    `after` last; whatever else the inner one says counts.
    """
    merged = {**outer, **inner}
    both = outer.keys() & inner.keys()
    for name in both & {"tags", "before"}:
        merged[name] = (*_several(outer[name]), *_several(inner[name]))
    if "after" in both:
        merged["after"] = (*_several(inner["after"]), *_several(outer["after"]))
    if "responses" in both:
        found = (outer["responses"], inner["responses"])
        if all(isinstance(each, Mapping) for each in found):
            merged["responses"] = {**outer["responses"], **inner["responses"]}
    return merged


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise OptionError(f"{value!r}, expected text")
    return inspect.cleandoc(str.__str__(value))


def _tags(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(tag, str) for tag in value):
        raise OptionError(f"{value!r}, expected a list of texts")
    return tuple(dict.fromkeys(map(str.__str__, value)))


def _operation_id(value: Any) -> str:
    if not isinstance(value, str) or not _OPERATION_ID.fullmatch(value):
        raise OptionError(f"{value!r}, expected letters, digits, '_' and '-', a letter first")
    return str.__str__(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{value!r}, expected True or False")
    return value


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 599


def _status(value: Any) -> int:
    if not _is_status(value):
        raise OptionError(f"{value!r}, expected a number from 200 to 599")
    return int(value)


def _responses(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionError(f"{value!r}, expected a mapping, as {{404: 'There is no such order'}}")
    read: dict[str, Any] = {}
    for status, said in value.items():
        if status != "default" and not _is_status(status):
            raise OptionError(f"{status!r}, expected a number from 200 to 599 or 'default'")
        if isinstance(said, Mapping):
            if fault := object_fault(said, "response"):
                raise OptionError(f"for {status} no response of OpenAPI: {fault}")
        elif isinstance(said, tuple):
            if not (len(said) == 2 and isinstance(said[0], str) and is_type(said[1])):
                raise OptionError(f"{said!r} for {status}, expected a text and a type")
        elif not (isinstance(said, str) or is_type(said)):
            raise OptionError(
                f"{said!r} for {status}, expected a text, a type, (text, type), or a response of "
                "OpenAPI"
            )
        read[str(status)] = said
    return MappingProxyType(read)


def _security(value: Any) -> Mapping[str, Mapping[str, Any]]:
    if isinstance(value, str | list | tuple):
        names = [value] if isinstance(value, str) else value
        unknown = [name for name in names if not isinstance(name, str) or name not in SCHEMES]
        if unknown:
            raise OptionError(
                f"{unknown[0]!r}, expected one of {', '.join(SCHEMES)}, or a mapping of names to "
                "security schemes of OpenAPI"
            )
        return MappingProxyType({name: SCHEMES[name] for name in names})
    if not isinstance(value, Mapping):
        raise OptionError(f"{value!r}, expected 'bearer', 'basic' or a mapping of schemes")
    for name, scheme in value.items():
        if not isinstance(name, str) or not _SCHEME_NAME.fullmatch(name):
            raise OptionError(f"{name!r}, expected a name of letters, digits, '_' and '-'")
        if not isinstance(scheme, Mapping) or not isinstance(scheme.get("type"), str):
            raise OptionError(f"{scheme!r} for {name}, expected a security scheme of OpenAPI")
        if fault := scheme_fault(scheme):
            raise OptionError(f"for {name} no security scheme of OpenAPI: {fault}")
    return MappingProxyType(dict(value))


def _hooks(value: Any, arguments: Sequence[str]) -> tuple[Callable[..., Any], ...]:
    hooks = tuple(_several(value))
    for hook in hooks:
        if not callable(hook):
            raise OptionError(f"{hook!r}, expected a hook of Falcon's, or a list of them")
        if fault := call_fault(hook, arguments):
            raise OptionError(fault)
    return hooks


def _before(value: Any) -> tuple[Callable[..., Any], ...]:
    return _hooks(value, HOOK_BEFORE)


def _after(value: Any) -> tuple[Callable[..., Any], ...]:
    return _hooks(value, HOOK_AFTER)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "summary": _text,
    "description": _text,
    "tags": _tags,
    "operation_id": _operation_id,
    "deprecated": _truth,
    "hidden": _truth,
    "status": _status,
    "responses": _responses,
    "security": _security,
    "before": _before,
    "after": _after,
}
