"""What the garbage collector has left."""

import gc
from collections.abc import Callable
from typing import Any


def collected(reference: Callable[[], Any]) -> bool:
    """Tell whether a weak reference's object is gone, after a full collection."""
    for _ in range(3):
        if reference() is None:
            return True
        gc.collect()
    return reference() is None
