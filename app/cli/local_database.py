"""The database as the command finds it on this machine."""

from collections.abc import Sequence

from app.database.connection import connection_options
from app.postgres.server import EmbeddedPostgres
from app.settings import Settings


def running_database(settings: Settings) -> str | None:
    """Return where the database is, None if it is the embedded one and does not run.

    Raises:
        SettingsError: DATABASE_URL cannot be read.
    """
    if settings.database_url:
        connection_options(settings.database_url)
        return settings.database_url
    if not EmbeddedPostgres(settings.data_dir).answers():
        return None
    return EmbeddedPostgres(settings.data_dir).uri


def psql_call(url: str, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return psql's arguments and what its environment adds: the password, which `ps` shows."""
    options = connection_options(url, application_name="psql")
    password = options.pop("password", None)
    quoted = {
        key: str(value).replace("\\", r"\\").replace("'", r"\'") for key, value in options.items()
    }
    dsn = " ".join(f"{key}='{value}'" for key, value in quoted.items())
    return ["--dbname", dsn, *arguments], {} if password is None else {"PGPASSWORD": password}
