"""Whether what a plugin says of itself can stand in a document: as JSON, with all it refers to."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from app.loading.strict_json import as_plain_json

_VALUES = ("const", "default", "enum", "example", "examples")
"""Where values stand: a `$ref` in them is a member, and refers to nothing."""

_NAMED = ("properties", "patternProperties", "$defs", "responses", "content")
"""Whose members have names that may be those of keywords, as a response is named `default`."""


class NotDescribedError(Exception):
    """A plugin's routes cannot be described; the message says what was found and expected."""


def checked_json(part: Any, where: str) -> Any:
    """Return a part of a document as it is read back from JSON: nothing else is left in it.

    Args:
        part: the part.
        where: what it describes, for the error.

    Raises:
        NotDescribedError: it holds what JSON does not have.
    """
    try:
        return as_plain_json(part)
    except (TypeError, ValueError) as error:
        raise NotDescribedError(
            f"what is said of {where} is no JSON ({error}); look at its `responses`, and at the "
            "examples, defaults and constraints of its models"
        ) from None


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
