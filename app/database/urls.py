"""Where the database is: a URL as people write it, for libpq. No word of it is ever shown."""

import re

import psycopg2
import psycopg2.extensions

from app.errors import SettingsError

# As of RFC 3986, 3.1; the driver after the `+` is SQLAlchemy's way to name it.
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.\-]*)://")
_OURS = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9_]+)?", re.IGNORECASE)

_QUOTED = re.compile(r"\s*[\"'`]")

_EXPECTED = "expected a libpq URI such as postgresql://user@host:5432/name"

# How libpq's own sentences begin (fe-connect.c), and what is said instead: they repeat the text.
_FAULTS = {
    "invalid percent-encoded token": "a % in it is not followed by two hexadecimal digits",
    "forbidden value %00": "it holds %00",
    "unexpected character": "something stands behind the host that is no port",
    "end of string reached when looking for matching": "a [ in it is not closed",
    "IPv6 host address may not be empty": "there is nothing between [ and ]",
    "invalid URI query parameter": "behind the ? stands a parameter that libpq does not know",
    "extra key/value separator": "a parameter behind the ? has two =",
    "missing key/value separator": "a parameter behind the ? has no =",
    "invalid connection option": "it holds a keyword that libpq does not know",
    "unterminated quoted string": "a quote in it is not closed",
    'missing "="': "a keyword in it is not followed by =",
}
_ENCODE = "a password is written there with %40 for @, %2F for /, %3A for :"

_HOST = re.compile(r"[/@].*|[\w.\-]*|[0-9A-Fa-f:.]+(%[\w.\-]+)?", re.DOTALL)
_PORT = re.compile(r"[0-9]{0,5}")

# `/shop&password=…`, `;password=…` or ` password=…`: libpq takes all of it for the database's name,
# and PostgreSQL repeats that.
_PARAMETER_IN_NAME = re.compile(r"[&;,\s]\s*\w+=")

# A `/` before the `@`: what was meant as a password is taken for a port, a name and a host.
_SPLIT_PASSWORD = re.compile(r"[^/?@]*:[^/?@]*/[^?]*@")


def parse_url(url: str, variable: str = "DATABASE_URL") -> dict[str, str]:
    """Return what a libpq URI or DSN says, by libpq's keywords.

    Args:
        url: the text; `postgresql+psycopg2://` and the like, as SQLAlchemy has them, will do.
        variable: the setting that holds it, for the error.

    Raises:
        SettingsError: it cannot be read, or names no host that there could be. The sentence holds
            nothing of the text but the name of an unknown scheme: the rest may be a password.
    """
    if _QUOTED.match(url):
        raise SettingsError(
            f"{variable} begins with a quotation mark, which is part of the value where no shell "
            "reads it, as in a file for `docker --env-file`; leave it out."
        )
    scheme = _SCHEME.match(url)
    if scheme is not None:
        if not _OURS.fullmatch(scheme[1]):
            raise SettingsError(
                f"{variable} has the scheme {scheme[1][:40]!r}; expected postgresql."
            )
        rest = url[scheme.end() :].rstrip()
        if _SPLIT_PASSWORD.match(rest):
            raise SettingsError(f"{variable} cannot be read: a / stands before the @; {_ENCODE}.")
        url = f"postgresql://{rest}"
    try:
        parameters: dict[str, str] = psycopg2.extensions.parse_dsn(url)
    except (psycopg2.Error, ValueError, UnicodeError) as error:
        said = str(error).strip().removeprefix("invalid dsn: ")
        fault = next((ours for theirs, ours in _FAULTS.items() if said.startswith(theirs)), "")
        because = f" ({fault})" if fault else ""
        raise SettingsError(f"{variable} cannot be read{because}; {_EXPECTED}.") from None
    _check_host(parameters, variable)
    if _PARAMETER_IN_NAME.search(parameters.get("dbname", "")):
        raise SettingsError(
            f"{variable} has a parameter in the database's name; the first one stands behind a ?, "
            "as in postgresql://host/name?connect_timeout=5&sslmode=require."
        )
    return parameters


def _check_host(parameters: dict[str, str], variable: str) -> None:
    """Refuse what libpq would take for a host, and repeat in its error, but is of a password."""
    if not all(_HOST.fullmatch(host) for host in parameters.get("host", "").split(",")):
        raise SettingsError(f"{variable} names a host that cannot be one; {_ENCODE}.")
    if not all(_PORT.fullmatch(port) for port in parameters.get("port", "").split(",")):
        raise SettingsError(f"{variable} names a port that is no number; {_ENCODE}.")
