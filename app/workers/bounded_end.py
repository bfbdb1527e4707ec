"""The end of a worker's interpreter is bounded, because finalizers of plugins run in it.

What is left of plugins is finalized after all threads and `atexit`. With a `__del__` that does not
return, the process would keep its place among the master's workers until that kills it.
"""

import atexit
import faulthandler

END_SECONDS = 5.0
"""How long the last finalizers may take."""

_STANDARD_ERROR = 2  # `sys.stderr` may be a plugin's


def bound_the_end(seconds: float = END_SECONDS) -> None:
    """Have this process end at once when its last finalizers take longer than so many seconds.

    It says on standard error where it was, and ends with exit code 1. To be called before anybody
    else uses `atexit`: what is registered first is called last.
    """
    atexit.register(faulthandler.dump_traceback_later, seconds, exit=True, file=_STANDARD_ERROR)
