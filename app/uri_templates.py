"""URI templates as Falcon reads them: segments, fields, and text that Falcon cannot hold."""

import ast
import re
from collections.abc import Mapping
from functools import lru_cache

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


def normal_path(path: str) -> str:
    """Return a path or template with one leading slash: Falcon reads `//a` as `/a`."""
    return "/" + path.lstrip("/")


def split_segments(path: str) -> list[str]:
    """Return the segments of a path or template."""
    return path.lstrip("/").split("/")


def first_segment(path: str) -> str:
    """Return the first segment of a path or template."""
    return path.lstrip("/").partition("/")[0]


def has_fields(template: str) -> bool:
    """Tell whether a template, or a segment of one, has a field: any other is a literal."""
    return "{" in template


def template_fields(uri_template: str) -> dict[str, bool]:
    """Return the names of a template's fields, and for each whether it has a Falcon converter."""
    return {
        field["fname"]: bool(field["cname"])
        for segment in split_segments(uri_template)
        for field in FIELD_PATTERN.finditer(segment)
    }


def converter_names(uri_template: str) -> set[str]:
    """Return the names of the converters that a template's fields have."""
    return {field["cname"] for field in FIELD_PATTERN.finditer(uri_template) if field["cname"]}


def rename_converters(uri_template: str, names: Mapping[str, str]) -> str:
    """Return a template with other names for some of its converters."""

    def renamed(field: re.Match[str]) -> str:
        begin, end = field.span("cname")
        name = field["cname"]
        text, at = field[0], field.start()
        return text[: begin - at] + names[name] + text[end - at :] if name in names else text

    return FIELD_PATTERN.sub(renamed, uri_template)


@lru_cache(4096)  # it is asked twice of each route, at each load
def quoting_fault(uri_template: str) -> str | None:
    """Tell which text of a template Falcon's router cannot hold, None if it can hold all of it.

    Falcon generates Python source for its look-up and copies the template's text into it: a
    literal segment between quotes, a segment that mixes text and fields into a comment. It
    evaluates the text between the parentheses of a converter. None of this text may become code.
    """
    if _NO_UTF_8.search(uri_template):
        return "holds NUL or a lone surrogate, expected neither"
    for segment in split_segments(uri_template):
        fields = list(FIELD_PATTERN.finditer(segment)) if has_fields(segment) else ()
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
