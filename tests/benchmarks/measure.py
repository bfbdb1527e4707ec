"""What a figure is, and the few statistics that it is made of."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Figure:
    """One line of the table.

    `ours` and `peer` are in `unit`; `held` is None where the goal is only to report; `samples`
    are the single measurements in `unit`, by side, for the spread and the plots.
    """

    name: str
    ours: float
    unit: str
    peer_name: str = ""
    peer: float | None = None
    ratio: float | None = None
    goal: str = "reported"
    held: bool | None = None
    spread: str = ""
    note: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the figure for the JSON file."""
        return asdict(self)


def median(samples: Sequence[float]) -> float:
    """Return the median, NaN of nothing."""
    return statistics.median(samples) if samples else math.nan


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the samples do not exceed (nearest rank)."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(samples: Sequence[float], digits: int = 3) -> str:
    """Return the middle half of the samples as text: `p25–p75`."""
    low, high = percentile(samples, 0.25), percentile(samples, 0.75)
    return f"{short(low, digits)}–{short(high, digits)}"


def short(number: float | None, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, without an exponent."""
    if number is None or math.isnan(number):
        return "—"
    if number == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    return f"{number:,.{places}f}"


def in_turns(
    rounds: int, sides: Mapping[str, Callable[[], Sequence[float]]]
) -> dict[str, list[list[float]]]:
    """Measure all sides once a round, in an order that turns; return each side's rounds."""
    found: dict[str, list[list[float]]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(list(sides[name]()))
    return found


def flat(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Return the samples of all rounds."""
    return [sample for part in rounds for sample in part]


@contextlib.contextmanager
def stopwatch(into: list[float]) -> Iterator[None]:
    """Append how many milliseconds the block took."""
    began = time.monotonic()
    yield
    into.append((time.monotonic() - began) * 1000)
