"""How many requests failed in a new version, on routes that answered in the version before."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from app.records import ServedRow

SPAN_SECONDS = 5.0
"""How long requests have to fail in fresh workers: so long everybody else has to be answered."""


@dataclass(slots=True)
class NewFailures:
    """A generation that is watched: which routes have to answer, and how many requests failed.

    `before` is the `binary_path` of the version before; `fresh` says that this process has loaded
    no other version; `since` is when the first one failed of those that are counted.
    """

    row: ServedRow
    templates: set[str]
    before: str
    fresh: bool
    until: float
    failed: Counter[str] = field(default_factory=Counter)
    since: float = 0.0
    is_judged: bool = False

    def count(self, template: str, now: float, max_failed: int) -> bool:
        """Count a request that failed; return whether there were enough to judge."""
        if template not in self.templates or self.is_judged:
            return False
        if not self.failed:
            self.since = now
        self.failed[template] += 1
        lasts = not self.fresh or now - self.since >= SPAN_SECONDS
        self.is_judged = lasts and self.failed.total() >= max_failed
        return self.is_judged

    def begin_again(self, templates: Collection[str]) -> None:
        """Count from 0 again, on those of the routes that have not answered."""
        self.templates.intersection_update(templates)
        self.failed.clear()
        self.is_judged = False

    def describe(self, template: str, what: str) -> str:
        """Return in a sentence what failed.

        Args:
            template: the route of the last one.
            what: what the plugin did there, as in "raised KeyError".
        """
        return (
            f"{self.failed.total()} requests failed that were answered in the version before, the "
            f"last one on {template}: the plugin {what}"
        )
