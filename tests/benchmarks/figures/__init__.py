"""The figures, each a function from the rig to lines of the table."""

from collections.abc import Callable

from tests.benchmarks.figures import boot, edits, imports, memory, requests, rows, throughput
from tests.benchmarks.measure import Figure
from tests.benchmarks.servers import Rig

FIGURES: dict[str, Callable[[Rig], list[Figure]]] = {
    "edit": edits.measure,
    "edit-peers": edits.measure_peers,
    "psql": rows.measure_update,
    "throughput": throughput.measure,
    "reload": rows.measure_reload,
    "storm": rows.measure_storm,
    "boot": boot.measure,
    "publish": boot.measure_publish,
    "memory": memory.measure,
    "requests": requests.measure,
    "import": imports.measure,
    "boot-10000": boot.measure_many,
}
"""By the name that `--only` takes, in the order in which they run: the floor of `edit` forks this
process, which has to be small then."""
