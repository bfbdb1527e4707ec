"""The last finalizers of a process, which may not take long."""

import subprocess
import sys
import time

SLOW = """
import time

from app.workers.bounded_end import bound_the_end

bound_the_end(0.2)


class Slow:
    def __del__(self):
        time.sleep(60)


kept = Slow()
"""


def test_a_finalizer_that_does_not_return_ends_with_its_process_and_is_shown():
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", SLOW], capture_output=True, text=True, timeout=60, check=False
    )
    assert time.monotonic() - began < 30
    assert ended.returncode == 1
    assert "Timeout (0:00:00.200000)!" in ended.stderr
    assert "line 11 in __del__" in ended.stderr
