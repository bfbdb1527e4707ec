"""What the driver's errors mean: an outage, a transient error, or a refusal.

PostgreSQL's code decides (its documentation, appendix A), and never its words, which it has in many
languages.
"""

import re
from collections.abc import Iterator

import psycopg2

from app.errors import (
    DatabaseBusyError,
    DatabaseError,
    DatabaseReadOnlyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
)

READ_ONLY = "25006"

# Connections, and a server that starts or stops. Where it lacks disk, memory or connections (53),
# it answers, and says so.
_AWAY = re.compile(r"08...|57P..")
_FULL = re.compile(r"53...")

# Of the lines of an error's context. A block of DO has no parentheses.
_FUNCTION = re.compile(r"^PL/pgSQL.*[\w\"]\(|\(\)")

# What psycopg2 refuses itself, without a word of PostgreSQL's: a NUL, a value of no type of SQL's.
_REFUSED_BY_DRIVER = (
    psycopg2.DataError,
    psycopg2.IntegrityError,
    psycopg2.NotSupportedError,
    psycopg2.ProgrammingError,
)


def error_of(error: psycopg2.Error, what: str = "the database refuses") -> DatabaseError:
    """Return our error for one of the driver's, over a connection that is still there.

    Args:
        error: the driver's.
        what: how the sentence of a refusal begins, to which PostgreSQL's own is added.
    """
    code = error.pgcode or ""
    if not code and not isinstance(error, _REFUSED_BY_DRIVER):
        return unavailable(error)
    if _AWAY.fullmatch(code) and not _ends_a_statement_only(error):
        return unavailable(error)
    reason = reason_of(error)
    if _FULL.fullmatch(code) and not is_of_a_function(error):
        return DatabaseBusyError(f"PostgreSQL lacks what it needs: {reason}")
    if code == READ_ONLY:
        return DatabaseReadOnlyError(
            f"it is read only: {reason}; connect to the primary, or end what makes it so"
        )
    origin = _origin(error)
    about = [part for part in (f"SQLSTATE {code}" if code else "", origin) if part]
    return DatabaseRefusedError(
        f"{what}: {reason}" + (f" ({', '.join(about)})" if about else ""),
        sqlstate=code,
        constraint=error.diag.constraint_name,
        raised=_raised(error),
    )


def is_of_a_function(error: psycopg2.Error) -> bool:
    """Tell whether a function says of something else what PostgreSQL says of itself.

    As one that writes to a foreign table, or over dblink, whose server is away: 08001, and this
    session goes on. That PostgreSQL lacks disk or memory (53) is no less so in a function's
    statement; there only what a function raises is its own word, as of a quota.
    """
    code = error.pgcode or ""
    if _FULL.fullmatch(code):
        return _raised(error) and bool(_raised_at(error))
    return bool(_AWAY.fullmatch(code)) and _ends_a_statement_only(error)


def _ends_a_statement_only(error: psycopg2.Error) -> bool:
    """Tell whether the session outlives an error: PostgreSQL ends it with FATAL or PANIC."""
    return error.diag.severity_nonlocalized == "ERROR"


def _origin(error: psycopg2.Error) -> str:
    """Return what refuses: a constraint, a column, or the function of a trigger."""
    diag = error.diag
    if diag.constraint_name:
        of = f" of {diag.table_name}" if diag.table_name else ""
        return f"constraint {diag.constraint_name}{of}"
    if diag.column_name:
        return f"column {diag.column_name} of {diag.table_name}"
    return _raised_at(error)


def _raised_at(error: psycopg2.Error) -> str:
    """Return where a function raised it, as `PL/pgSQL function frozen() line 3 at RAISE`."""
    lines = (error.diag.context or "").strip().splitlines()
    return next((" ".join(line.split()) for line in lines if _FUNCTION.search(line)), "")


def _raised(error: psycopg2.Error) -> bool:
    """Tell whether somebody wrote this refusal: a RAISE, and not PostgreSQL's own check."""
    return (error.diag.context or "").partition("\n")[0].rstrip().endswith("RAISE")


# What libpq (fe-connect.c) repeats of a URL where a parameter's value is none: it may be of a
# password that was not encoded.
_REPEATED = re.compile(r'(invalid [\w ]*value:?) "[^"]*"')


def reason_of(error: Exception) -> str:
    """Return what the driver, or PostgreSQL, says went wrong: in one line, without a URL's values.

    Of a statement that is its sentence and its hint, without the detail, which may be a whole row;
    of a connection that is lost or was never made, all that libpq says.
    """
    if isinstance(error, psycopg2.Error) and error.diag.message_primary:
        said = [error.diag.message_primary, error.diag.message_hint or ""]
        return "; ".join(" ".join(text.split()) for text in said if text)
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    said = [line if line[-1] in ".?!:;," else f"{line}." for line in lines if line]
    reason = " ".join(said).removesuffix(".") or type(error).__name__
    return _REPEATED.sub(r"\1 (not shown: it stands in the URL)", reason)


def unavailable(error: psycopg2.Error) -> DatabaseUnavailableError:
    """Return a driver's error as ours."""
    return DatabaseUnavailableError(f"the database is away: {reason_of(error)}")


_TRANSIENT = re.compile(
    r"08...|57P..|53..."  # connections, shutdowns, a full house
    r"|40001|40P01|55P03|25006"  # conflicts, locks, a standby that becomes the primary
    r"|42P07|42710|42P06"  # `IF NOT EXISTS` that came a moment too late
)
_RACES = re.compile(r"tuple concurrently (updated|deleted)")


def is_transient(error: BaseException) -> bool:
    """Tell whether a plugin's error comes of PostgreSQL, and the same may succeed in a moment.

    Two sessions that create one object at once, even with `IF NOT EXISTS`, end with an error in one
    of them: 42P07, 42710, 42P06, or 23505 on an index of the catalogue, or XX000 (PostgreSQL's
    documentation, appendix A; `heapam.c` for the last). Errors of a library that wraps psycopg2
    count by their cause.
    """
    for cause in _causes(error):
        if isinstance(cause, psycopg2.Error):
            code = cause.pgcode
            if code is None:  # it never reached the server, or lost it
                return isinstance(cause, psycopg2.OperationalError)
            if code == "23505":
                return (cause.diag.constraint_name or "").startswith("pg_")
            if code == "XX000":
                return bool(_RACES.search(str(cause)))
            return _TRANSIENT.fullmatch(code) is not None
    return False


def comes_from_outside(error: BaseException) -> bool:
    """Tell whether a plugin's error comes of what it finds, and may go without an edit of it.

    A full disk, a folder without rights, a volume, a service or a table that is not there yet: what
    the system or the database answers, and whatever a library makes of that.
    """
    return any(isinstance(cause, (OSError, psycopg2.Error)) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error, what it was raised from, and so on."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
