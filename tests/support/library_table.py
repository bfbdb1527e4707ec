"""The table of docs/libraries.md, which tests/acceptance/test_libraries.py writes and compares."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.checkout import CHECKOUT
from tests.support.library_cases import Case
from tests.support.library_runs import Finding

TABLE = CHECKOUT / "docs" / "libraries.md"

MAX_LENGTH = 240

HEAD = """# Libraries, and how plugins that use them are edited

Each library is used at module level as it typically is (`tests/cases/libraries`), in a plugin that
a server with two workers serves. It is edited ten times under load, together with all others. After
each edit the plugin answers on every worker for the new version, *and so does the library* (the
metric's value out of the registry, the task found by its name and run, the schema that the registry
gives); and at the end the library's registries hold no more than after one load.

- *hot*: edits are loaded into the workers that run. *Fresh workers*: they go live by new workers,
  because of what the [rehearsal](writing-plugins.md#what-a-library-keeps) found. Such a plugin is
  then edited with `reload: hot`, and the last column has what fails there. *Refused*: it is not
  published.
- *Failed* are the requests of the load that were not answered with 200, in all ten edits.
- *Kept* are the versions of all ten that stay in a worker's memory once each of its threads has
  answered again, and what the log names for it.

A test makes this table: `WRITE_TABLES=1 pytest -m soak tests/acceptance/test_libraries.py`; without
`WRITE_TABLES` it fails where a line is another.

"""
_COLUMNS = (
    "library and its use",
    "version",
    "edits",
    "failed",
    "kept",
    "why",
    "what fails with `reload: hot`",
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table, all of it text as it stands there."""

    use: str
    version: str
    how: str
    failed: str
    kept: str
    why: str
    hot: str

    @classmethod
    def of(cls, case: Case, found: Finding, hot: str) -> "Line":
        """Make the line of a case that is served; `hot` is what fails if it is told to be hot."""
        kept, why, fails = (_plain(text, case.name) for text in (found.kept or "0", found.why, hot))
        failed = str(len(found.failed))
        return cls(case.use, str(case.version), found.how, failed, kept, why, fails)

    @classmethod
    def refused(cls, case: Case, why: str) -> "Line":
        """Make the line of a case that is not published."""
        return cls(case.use, str(case.version), "refused", "", "", _plain(why, case.name), "")

    @property
    def matters(self) -> tuple[object, ...]:
        """What a later run has to find again: no versions and numbers, nor what a log names first.

        The way, its reason, and whether anything failed, was kept, or fails where it is hot.
        """
        why = re.sub(r"\d+", "0", self.why)
        return (self.use, self.how, why, self.failed, self.kept == "0", bool(self.hot))

    def __str__(self) -> str:
        """Return the line."""
        cells = (self.use, self.version, self.how, self.failed, self.kept, self.why, self.hot)
        return f"| {' | '.join(cells)} |"


def _plain(text: str, name: str) -> str:
    """Return a text without what is another in each run, or would end the cell."""
    text = re.sub(rf"\b_plugins\.{name}\.g\d+\.", "", " ".join(text.split()))
    text = re.sub(r"(/\S+)?/unpacked/\S+?/\S+?/", "", text)
    text = re.sub(r"0x[0-9a-f]+", "0x…", text).replace("|", "\\|")
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}…"


def read_table() -> list[Line]:
    """Return the lines of the table as it stands."""
    rows = re.findall(r"^\| (.*) \|$", TABLE.read_text(), re.MULTILINE)
    return [Line(*row.split(" | ")) for row in rows[2:]]


def write_table(lines: Iterable[Line]) -> None:
    """Write the table."""
    rows = [f"| {' | '.join(_COLUMNS)} |", "|" + " --- |" * len(_COLUMNS), *map(str, lines)]
    TABLE.write_text(HEAD + "\n".join(rows) + "\n")
