"""What a docstring says: a summary, a description, and what it says of each parameter."""

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

from app.inspection import is_class

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples):\s*$")
_ARGUMENT = re.compile(r"^\*{0,2}(?P<name>\w+)(?:\s*\([^)]*\))?:\s*(?P<text>.*)$")
_ARGUMENTS = ("Args", "Arguments", "Parameters")


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring in the style of Google's, taken apart."""

    summary: str = ""
    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    returns: str = ""


def read_docstring(item: Any) -> Docstring:
    """Return what the docstring of a function or a class says, nothing if it has none."""
    text = getattr(item, "__doc__", None)
    if not isinstance(text, str) or not text.strip():
        return Docstring()
    if is_class(item) and text is getattr(object, "__doc__", None):
        return Docstring()
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in inspect.cleandoc(text).splitlines():
        section = _SECTION.match(line)
        if section is not None:
            name = section[1]
        sections.setdefault(name, []).append("" if section else line)
    summary, _, description = "\n".join(sections[""]).strip().partition("\n\n")
    parameters: dict[str, str] = {}
    for each in _ARGUMENTS:
        parameters |= _arguments(sections.get(each, []))
    returns = " ".join(" ".join(sections.get("Returns", [])).split())
    return Docstring(" ".join(summary.split()), description.strip(), parameters, returns)


def _arguments(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    name = ""
    text = inspect.cleandoc("\n".join(lines))
    for line in text.splitlines():
        begins = _ARGUMENT.match(line)
        if begins is not None:
            name = begins["name"]
            found[name] = [begins["text"]]
        elif name:
            found[name].append(line.strip())
    return {name: " ".join(" ".join(parts).split()) for name, parts in found.items()}
