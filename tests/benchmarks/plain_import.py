"""The floor of a boot: plain Python imports the same modules and wires the same plugins.

`python -m tests.benchmarks.plain_import ROOT [routes]` prints one line of JSON with the resident
set in KB before and after the plugins; with `routes`, a `falcon.App` holds their routes.
"""

import gc
import json
import sys
from pathlib import Path

import gunicorn.app.wsgiapp
import gunicorn.workers.gthread  # noqa: F401

import app.server  # noqa: F401
from tests.benchmarks.static_app import NoRoutes, create


def _resident() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4.0


def main() -> None:
    """Import everything below the folder of the first argument."""
    before = _resident()
    application = create(Path(sys.argv[1]), None if "routes" in sys.argv else NoRoutes())
    print(json.dumps({"before": before, "after": _resident(), "is": bool(application)}))


if __name__ == "__main__":
    main()
