"""What a trial's process may take."""

import os
import resource
import time
from contextlib import suppress
from pathlib import Path

from app.publishing.trials.trial_memory import limit_memory

FILE_BYTES = 256 * 1024**2
NICE = 5
"""How much a rehearsal stands back behind those who serve: nobody waits for it, as a rule."""


def give_way() -> None:
    """Leave the processor to others, those of other sessions, too."""
    os.nice(NICE)
    # Linux shares it among sessions first (sched(7), autogroup), and each child leads its own.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


def limit(seconds: float, memory: int) -> None:
    """Limit this process for good.

    Args:
        seconds: of CPU time, from now on.
        memory: bytes of its own.
    """
    limit_cpu(seconds)
    limit_memory(memory)
    for kind, amount in (
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _lower(kind, amount)


def limit_cpu(seconds: float) -> None:
    """Allow so much CPU time from now on."""
    _lower(resource.RLIMIT_CPU, int(time.process_time() + seconds) + 1)


def _lower(kind: int, amount: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        amount = min(amount, hard)
    # macOS refuses some of them; the wall clock bounds a trial in any case.
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (amount, hard))
