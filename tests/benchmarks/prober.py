"""Asks one path 100 times a second, each over a new connection, until its input ends.

`python -m tests.benchmarks.prober PORT PATH` prints one line of JSON.
"""

import json
import select
import sys
import time
from collections import Counter

from tests.benchmarks.pinned import fetch

INTERVAL_SECONDS = 0.01


def main() -> None:
    """Ask until the standard input is closed."""
    port, path = int(sys.argv[1]), sys.argv[2]
    faults: Counter[str] = Counter()
    asked, slowest = 0, 0.0
    while not select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0]:
        began = time.monotonic()
        try:
            status, _ = fetch(port, path, seconds=5.0)
            if status != 200:
                faults[f"status {status}"] += 1
        except OSError as error:
            faults[type(error).__name__] += 1
        asked += 1
        slowest = max(slowest, (time.monotonic() - began) * 1000)
    failed = sum(faults.values())
    print(json.dumps({"asked": asked, "failed": failed, "slowest": slowest, "faults": faults}))


if __name__ == "__main__":
    main()
