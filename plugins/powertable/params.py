"""The parameters of a query string: those that are known, once each."""

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

import falcon

from .values import show

_FLAGS = {
    **dict.fromkeys(("true", "True", "t", "yes", "y", "1", "on"), True),
    **dict.fromkeys(("false", "False", "f", "no", "n", "0", "off"), False),
}

Params = Mapping[str, str | list[str]]


def bad_query(sentence: str) -> falcon.HTTPBadRequest:
    return falcon.HTTPBadRequest(title="Bad query", description=sentence)


def read_params(req: falcon.Request) -> Params:
    """Return the parameters of a request whose path and query are UTF-8.

    Falcon reads what is none with another character in its place, and a byte that is not
    percent-encoded as if it were Latin-1: both would look for another value than was sent.

    Raises:
        falcon.HTTPBadRequest: names the part that is none.
    """
    path = req.env.get("PATH_INFO", "").encode("latin-1")
    if not _is_utf8(path):
        raise bad_query(
            f"The path: found {show(path.decode('utf-8', 'backslashreplace'))}, {_UTF8}"
        )
    for part in req.query_string.split("&"):
        if not part.isascii():
            shown = part.encode("latin-1", "replace").decode("utf-8", "backslashreplace")
            raise bad_query(
                f"The query: found {show(shown)}, expected every byte beyond ASCII to be "
                "percent-encoded, such as %C3%B6 for ö."
            )
        if "%" in part and not _is_utf8(unquote_to_bytes(part)):
            raise bad_query(f"The query: found {show(part)}, {_UTF8}")
    return req.params


def check_known(req: falcon.Request, known: tuple[str, ...] = ()) -> Params:
    """Return the parameters of a call, which takes no others than those that are known.

    Raises:
        falcon.HTTPBadRequest: names one that is not, and those that are; or see `read_params`.
    """
    params = read_params(req)
    for name in params:
        if name not in known:
            expected = ", ".join(known) or "none"
            raise bad_query(f"Found the parameter {show(name)}, expected {expected}.")
    return params


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


_UTF8 = "which is no UTF-8, expected text such as %C3%B6 for ö."


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
