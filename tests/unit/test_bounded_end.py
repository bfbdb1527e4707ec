"""The end of a process, which no plugin may hold up for long."""

import subprocess
import sys
import textwrap

import pytest

END = """
from app.loading.exit_functions import exit_functions
from app.loading.started_threads import started_threads
from app.workers.bounded_end import bound_the_end

exit_functions.watch()
started_threads.watch(str)
code = compile({code!r}, "/versions/main.py", "exec")
exec(code, {{"__name__": "_plugins.shop.g2.main"}})
started_threads.unwatch()
bound_the_end({named}, 20)
"""


def ended(code: str, named: float = 0.2) -> "subprocess.CompletedProcess[str]":
    """Run a plugin's code in a process that then ends, and return how it has ended."""
    script = END.format(code=textwrap.dedent(code), named=named)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "import atexit, time\natexit.register(time.sleep, 600)",
            "shop g2: what it has registered with atexit at main.py:2 has not returned",
        ),
        (
            """
            import atexit, time
            @atexit.register
            def wait():
                time.sleep(600)
            atexit.register(str)
            """,
            "shop g2: what it has registered with atexit at main.py:3 has not returned",
        ),
        (
            """
            from concurrent.futures import ThreadPoolExecutor
            import time
            ThreadPoolExecutor(2, "jobs").submit(time.sleep, 600)
            """,
            "shop g2: its thread 'jobs_0' still runs",
        ),
        (
            """
            from concurrent.futures import ThreadPoolExecutor
            import threading, time
            def begin():
                ThreadPoolExecutor(2, "jobs").submit(time.sleep, 600)
            load = threading.Thread(target=begin, daemon=True)
            load.start()
            load.join()
            """,
            "shop g2: its thread 'jobs_0' still runs",
        ),
        (
            """
            import threading, time
            def run():
                time.sleep(600)
            threading.Thread(target=run, name="poll").start()
            """,
            "shop g2: its thread 'poll' still runs at main.py:4",
        ),
    ],
    ids=["atexit of C", "atexit", "executor", "executor of a daemon", "thread"],
)
def test_who_holds_up_the_end_is_named_and_the_process_ends(code: str, said: str) -> None:
    process = ended(code)
    assert process.returncode == 1
    assert said in process.stderr
    assert "Timeout" not in process.stderr  # the last resort


def test_what_ends_in_time_is_waited_for() -> None:
    process = ended(
        """
        import atexit, threading, time
        atexit.register(print, "registered")
        atexit.unregister(atexit.register(str))
        def run():
            time.sleep(0.1)
            print("thread")
        threading.Thread(target=run).start()
        """,
        named=15,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.split() == ["thread", "registered"]


SLOW = """
import time

from app.workers.bounded_end import bound_the_end

bound_the_end(0.2, 0.4)


class Slow:
    def __del__(self):
        time.sleep(600)


kept = Slow()
"""


def test_a_finalizer_that_does_not_return_ends_with_its_process_and_is_shown() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SLOW], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "Timeout (0:00:00.400000)!" in ended.stderr
    assert "line 11 in __del__" in ended.stderr
