"""Whether what a plugin says of itself can stand in a document: as JSON."""

from typing import Any

from app.loading.strict_json import as_plain_json


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
