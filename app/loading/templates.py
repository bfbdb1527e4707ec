"""URI templates as Falcon reads them: their fields, and what of them cannot be served."""

import ast
import re
from typing import TYPE_CHECKING, Any

from falcon.routing import CompiledRouter, map_http_methods, set_default_responders

MAX_TEMPLATE_LENGTH = 500
DEEP = 20
"""From so many segments on, a template is compiled by itself before it is accepted: Python takes
100 levels of indentation, of which Falcon's router needs one to three for each segment."""

# As in `falcon.routing.compiled`, which applies it to each segment by itself.
FIELD_PATTERN = re.compile(
    r"{((?P<fname>[^}:]*)((?P<cname_sep>:(?P<cname>[^}\(]*))(\((?P<argstr>[^}]*)\))?)?)}"
)
_NO_UTF_8 = re.compile("[\0\ud800-\udfff]")
_ENDS_LITERAL = re.compile(r"['\\\r\n]")
_ENDS_COMMENT = re.compile(r"[\r\n]")
_PLAIN_VALUES = (
    ast.Constant,
    ast.UnaryOp,
    ast.BinOp,
    ast.unaryop,
    ast.operator,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.Starred,
    ast.Load,
)
_SAMPLES = ("", "a", *("0" * length for length in range(1, 33)))
"""Texts that make a converter raise if its arguments are of a wrong type, as of `dt(5)`."""


class SegmentRouter(CompiledRouter):
    """Falcon's router, given each route's method map instead of looking it up in the resource."""

    if TYPE_CHECKING:

        def find(self, uri: str, req: Any = None) -> Any:
            """Find a path; the method map is the one that came with the route."""

    def map_http_methods(self, resource: object, **kwargs: Any) -> dict[str, Any]:
        """Return the method map that came with the route."""
        methods: dict[str, Any] = kwargs["methods"]
        return methods

    def _require_non_coroutine_responders(self, method_map: dict[str, Any]) -> None:
        """Do nothing: the collector has looked, once and not for each table."""

    def compile(self) -> None:
        """Compile what Falcon leaves for the first request: it shall not wait, nor find a fault."""
        if self._find == self._compile_and_find:  # otherwise it is compiled already
            self._find = self._compile()

    def converter_fault(self) -> str | None:
        """Tell which converter of a compiled router raises where it should convert or not."""
        for converter in self._converters:
            for text in _SAMPLES:
                try:
                    converter.convert(text)
                except Exception as error:  # noqa: BLE001 - it would be a 500 at a request
                    name = type(converter).__name__
                    return f"its {name} raises for {text!r} ({type(error).__name__}: {error})"
        return None


ROUTING_ERRORS = (ValueError, SyntaxError, re.error)
"""What Falcon's router raises for a template that it cannot take."""


def template_fields(uri_template: str) -> dict[str, bool]:
    """Return the names of a template's fields, each with whether it has a Falcon converter."""
    return {
        field["fname"]: bool(field["cname"])
        for segment in _segments(uri_template)
        for field in FIELD_PATTERN.finditer(segment)
    }


def template_fault(uri_template: object, *, alone: bool = True) -> str | None:
    """Tell why a template cannot be served, None if it can.

    Args:
        uri_template: the template.
        alone: whether to ask Falcon's router, too, what it makes of it where it stands alone.
    """
    if not isinstance(uri_template, str) or not uri_template.startswith("/"):
        return f"the template is {uri_template!r}, expected text that starts with '/'"
    if len(uri_template) > MAX_TEMPLATE_LENGTH or "\0" in uri_template:
        return (
            f"the template {uri_template[:40]!r}… has {len(uri_template):,} characters, "
            f"expected {MAX_TEMPLATE_LENGTH} at most and no NUL"
        )
    if "//" in uri_template:
        return f"the template {uri_template!r} holds '//', expected single slashes, as in Falcon"
    found = unquotable(uri_template)
    if found is not None:
        return f"the template {uri_template!r} {found}"
    if not alone:
        return None
    # Most templates have neither, and compiling takes ten times as long as the rest.
    thorough = uri_template.count("/") > DEEP or "(" in uri_template
    found = routing_fault(uri_template, compiled=thorough)
    return None if found is None else f"the template {uri_template!r}: {found}"


def routing_fault(uri_template: str, *, compiled: bool = True) -> str | None:
    """Tell what Falcon's router refuses of a template by itself, None if it takes it.

    With `compiled` also what it would refuse, or raise, at requests.
    """
    router = SegmentRouter()
    try:
        router.add_route(uri_template, router, methods=_NO_METHODS)
        if compiled:
            router.compile()
    except ROUTING_ERRORS as error:
        cause = error.__cause__
        return str(error) if cause is None else f"{error} ({type(cause).__name__}: {cause})"
    return router.converter_fault() if compiled else None


def unquotable(uri_template: str) -> str | None:
    """Tell which text of a template Falcon's router cannot hold, None if it can hold all.

    Falcon writes a template into the Python source of its search as it stands: a literal segment
    between quotes, one that mixes text and fields into a comment; and it evaluates what stands
    between the parentheses of a converter. None of that may become code.
    """
    if _NO_UTF_8.search(uri_template):
        return "holds NUL or a lone surrogate, expected neither"
    for segment in _segments(uri_template):
        fields = list(FIELD_PATTERN.finditer(segment)) if "{" in segment else ()
        if not fields:
            if _ENDS_LITERAL.search(segment):
                return (
                    f"holds a quote, a backslash or a line break in {segment!r}; Falcon takes "
                    "them beside or inside a field only"
                )
            continue
        if _ENDS_COMMENT.search(FIELD_PATTERN.sub("", segment)):
            return f"holds a line break in {segment!r}, expected none outside a converter"
        for field in fields:
            if _ENDS_COMMENT.search(field["fname"]):
                return f"has a field named {field['fname']!r}, expected a name without a line break"
            if field["argstr"] is not None and not _are_values(field["argstr"]):
                return (
                    f"gives the converter {field['cname']!r} the arguments ({field['argstr']}), "
                    "expected plain values: numbers, texts, True, False, None"
                )
    return None


def _are_values(arguments: str) -> bool:
    try:
        call = ast.parse(f"f({arguments})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return False
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return all(isinstance(node, _PLAIN_VALUES) for value in values for node in ast.walk(value))


def _segments(uri_template: str) -> list[str]:
    return uri_template.lstrip("/").split("/")


_NO_METHODS: dict[str, Any] = dict(map_http_methods(object()))
set_default_responders(_NO_METHODS)
