"""What a part of a document refers to: whether it is there, and under which name."""

from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import unquote

_SCHEMAS = "#/components/schemas/"

_VALUES = ("const", "default", "enum", "example", "examples")
"""Where values stand: a `$ref` in them is a member, and refers to nothing."""

_NAMED = ("properties", "patternProperties", "$defs", "responses", "content")
"""Whose members have names that may be those of keywords, as a response is named `default`."""


def lost_reference(part: Any, document: dict[str, Any]) -> str | None:
    """Return the first reference within a part that leads nowhere in its document, None if none."""
    for item in objects_in(part):
        reference = item.get("$ref")
        if isinstance(reference, str) and not _leads(reference, document):
            return reference
    return None


def objects_in(part: Any) -> Iterator[dict[str, Any]]:
    """Give each object of OpenAPI within a part of a document, before those that are in it.

    What is a value or an extension is none, whatever it holds.
    """
    waiting = [part]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            yield item
            for key, each in item.items():
                if key in _NAMED and isinstance(each, dict):
                    waiting += each.values()
                elif key not in _VALUES and not key.startswith("x-"):
                    waiting.append(each)


def _leads(reference: str, document: Any) -> bool:
    """Tell whether a reference leads somewhere: a JSON pointer (RFC 6901) as a fragment."""
    if not reference.startswith("#/"):  # another document, or an anchor
        return True
    item = document
    for token in unquote(reference[2:]).split("/"):
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(item, list):
            if not key.isdecimal() or int(key) >= len(item):
                return False
            item = item[int(key)]
        elif isinstance(item, dict) and key in item:
            item = item[key]
        else:
            return False
    return True


def rename_own(part: Any, prefix: str, schemas: Collection[str], ids: Collection[str]) -> None:
    """Have a part refer to a plugin's components and operations by the names that they have here.

    What a plugin writes itself has their names as in its own document.

    Args:
        part: the part, of plain JSON that is nobody else's; it is changed.
        prefix: what the names begin with here.
        schemas: the names of the plugin's components here.
        ids: those of its operations.
    """

    def renamed(reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith(_SCHEMAS):
            return reference
        name, slash, below = reference.removeprefix(_SCHEMAS).partition("/")
        own = prefix + unquote(name)
        is_known = own in schemas and unquote(name) not in schemas
        return f"{_SCHEMAS}{own}{slash}{below}" if is_known else reference

    for item in objects_in(part):
        if "$ref" in item:
            item["$ref"] = renamed(item["$ref"])
        for link in _object(item, "links").values():
            if isinstance(link, dict) and prefix + str(link.get("operationId")) in ids:
                link["operationId"] = prefix + link["operationId"]
        mapping = _object(item, "discriminator").get("mapping")
        if isinstance(mapping, dict):
            for value, name in mapping.items():
                is_name = isinstance(name, str) and prefix + name in schemas
                mapping[value] = prefix + name if is_name else renamed(name)


def _object(item: dict[str, Any], name: str) -> dict[str, Any]:
    found = item.get(name)
    return found if isinstance(found, dict) else {}
