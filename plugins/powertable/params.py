"""The parameters of a query string: those that are known, once each."""

from collections.abc import Mapping

import falcon

from .values import show

_FLAGS = {
    **dict.fromkeys(("true", "True", "t", "yes", "y", "1", "on"), True),
    **dict.fromkeys(("false", "False", "f", "no", "n", "0", "off"), False),
}

Params = Mapping[str, str | list[str]]


def bad_query(sentence: str) -> falcon.HTTPBadRequest:
    return falcon.HTTPBadRequest(title="Bad query", description=sentence)


def check_known(params: Params, known: tuple[str, ...] = ()) -> None:
    """Refuse a parameter that a call does not take.

    Raises:
        falcon.HTTPBadRequest: names it, and those that are known.
    """
    for name in params:
        if name not in known:
            expected = ", ".join(known) or "none"
            raise bad_query(f"Found the parameter {show(name)}, expected {expected}.")


def one_of(params: Params, name: str, default: str | None) -> str | None:
    """Return the value of a parameter that is given once, or the default.

    Raises:
        falcon.HTTPBadRequest: it is given several times.
    """
    value = params.get(name, default)
    if isinstance(value, list):
        raise bad_query(f"{name}: found {len(value)} values, expected one.")
    return value


def flag(params: Params, name: str) -> bool:
    """Return a parameter that is `true` or `false`, in any of Falcon's words; absent is false.

    Raises:
        falcon.HTTPBadRequest: it is something else, or given several times.
    """
    value = one_of(params, name, "false")
    if value not in _FLAGS:
        raise bad_query(f"{name}: found {show(value)}, expected true or false.")
    return _FLAGS[value]


def read_numbers(params: Params) -> bool:
    """Return whether `numbers=text` asks for whole numbers and decimals as texts.

    Raises:
        falcon.HTTPBadRequest: it is something else, or given several times.
    """
    value = one_of(params, "numbers", None)
    if value not in (None, "text"):
        raise bad_query(f"numbers: found {show(value)}, expected text, or no such parameter.")
    return value == "text"
