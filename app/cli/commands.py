"""The `benana` command.

Each command imports what it needs when it runs, so that `benana --help` answers at once.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Never
from urllib.parse import quote

import click

from app.cli.options import calls_a_server, settings_of
from app.cli.terminal import (
    echo_failure,
    echo_reasons,
    echo_table,
    fault_line,
    plain,
    show_json,
    status_text,
)
from app.errors import BenanaError, SettingsError
from app.settings import Settings

NEW_SECONDS = 3.0
"""How long a running server has to register a new plugin."""

_PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_SETTINGS_HELP = f"""\b
Settings, from the environment:
  BENANA_BIND         where the server listens     {Settings.bind}
  BENANA_PLUGINS_DIR  the plugins' folders         {Settings.plugins_dir}
  BENANA_DATA_DIR     the PostgreSQL of its own    {Settings.data_dir}
  DATABASE_URL        another PostgreSQL instead
  BENANA_ADMIN_TOKEN  what reload and toggle send  none
  BENANA_URL          the server that is called    where BENANA_BIND is
  BENANA_CA           the CA of its certificate    the system's"""


class _Failure(click.ClickException):
    """Ends the command with one sentence on standard error and exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(self.message, file=file, err=True)


class _Misuse(_Failure):
    """Ends the command with exit code 2: it was set up wrongly."""

    exit_code = 2


class _Commands(click.Group):
    """Commands in the order in which one comes to need them; our errors end as sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise _Misuse(str(error)) from None
        except BenanaError as error:
            raise _Failure(str(error)) from None


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    options_metavar="",
    subcommand_metavar="COMMAND",
    epilog=_SETTINGS_HELP,
)
@click.version_option(package_name="benana", prog_name="benana", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Benana, a live plugin server: save a file, and every worker serves it."""
    if os.environ.get("NO_COLOR"):
        context.color = False
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command(context_settings=_PASS_THROUGH, options_metavar="")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[GUNICORN OPTIONS]")
def serve(arguments: tuple[str, ...]) -> None:
    """Start the server: gunicorn, set up by gunicorn.conf.py.

    That is the one of the current folder, or else the one that comes with Benana. Gunicorn's
    options stand behind: benana serve --workers 4
    """
    from app.cli.launch import gunicorn_arguments

    # The script and not `-m gunicorn`: when gunicorn starts itself anew (USR2), that would put
    # its own folder first on sys.path, and with it another `app`.
    script = Path(sys.executable).with_name("gunicorn")
    if not script.is_file():
        raise _Failure(f"There is no {script}; run: {sys.executable} -m pip install gunicorn")
    _exec(script, gunicorn_arguments(arguments))


@main.command(options_metavar="[--typed] [--server URL]")
@click.argument("name")
@click.option("--typed", is_flag=True, help="With models of pydantic's, for bodies and answers.")
@calls_a_server
def new(name: str, typed: bool, **server: Any) -> None:
    """Write a plugin that works, to begin with."""
    from app.cli.scaffold import write_plugin
    from app.cli.target import Target

    settings = settings_of(**server)
    curl = Target.of(settings).curl
    folder = write_plugin(settings.plugins_dir, name, typed=typed)
    click.echo(f"Wrote {click.style(str(folder), bold=True)}")
    click.echo("  main.py      its routes")
    click.echo("  plugin.yaml  its description and config")
    click.echo()
    click.echo(_where_it_is_served(settings, name, folder))
    click.echo(f"  {curl}/{name}")
    click.echo(f'  {curl}/{name} -d \'{{"fruit": "banana"}}\'')
    click.echo(f"  {curl}/plugins/{name}/openapi.json")
    click.echo()
    click.echo("Edit main.py, save it, and call it again.")


@main.command(options_metavar="")
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
def check(paths: tuple[Path, ...]) -> None:
    """Compile and try plugin folders, without a server.

    Each is tried in a process of its own. Its database is DATABASE_URL, or else Benana's own
    while that runs; what it writes there is rolled back.
    """
    from app.cli.check import check_folders

    if not check_folders(paths):
        click.get_current_context().exit(1)


@main.command("list", options_metavar="[--json] [--server URL]")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@calls_a_server
def list_plugins(as_json: bool, **server: Any) -> None:
    """Show the plugins, and what is wrong with them."""
    from app.cli.client import call

    settings = settings_of(**server)
    plugins = call(settings, "GET", "/plugins", list)
    failures = call(settings, "GET", "/plugins?status=failed", list)
    if as_json:
        click.echo(show_json([*plugins, *failures]))
        return
    if not plugins and not failures:
        click.echo(
            "No plugin is registered. Write one with `benana new NAME`. A folder that is there "
            "already is\nregistered when it changes, at the server's next start, or by "
            "`benana reload NAME`."
        )
    if plugins:
        header = ("NAME", "STATUS", "VERSION", "GENERATION", "ROUTES", "ERROR")
        rows = [
            (
                plugin["name"],
                plugin["status"],
                plugin["version"],
                str(plugin["generation"]),
                str(len({endpoint["path"] for endpoint in plugin["endpoints"]})),
                fault_line(plugin["error"]) if plugin["error"] else "",
            )
            for plugin in plugins
        ]
        shown = None if any(row[-1] for row in rows) else -1  # no errors, no column for them
        echo_table([row[:shown] for row in rows], header[:shown], right={3, 4})
    for number, failure in enumerate(failures):
        if plugins or number:
            click.echo()
        echo_failure(failure["name"], fault_line(failure["error"]))
    echo_reasons(call(settings, "GET", "/workers", list))


@main.command(options_metavar="[--json] [--server URL]")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@calls_a_server
def reload(name: str, as_json: bool, **server: Any) -> None:
    """Compile and publish a plugin again."""
    _change(settings_of(**server), name, "reload", as_json=as_json)


@main.command(options_metavar="[--json] [--server URL]")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@calls_a_server
def toggle(name: str, as_json: bool, **server: Any) -> None:
    """Turn a plugin off, or on again."""
    _change(settings_of(**server), name, "toggle", as_json=as_json)


@main.command(options_metavar="[--server URL]")
@click.argument("name", required=False)
@calls_a_server
def openapi(name: str | None, **server: Any) -> None:
    """Print the OpenAPI document of all that is live, or of one plugin."""
    from app.cli.client import call

    below = f"/plugins/{quote(name, safe='')}" if name is not None else ""
    click.echo(show_json(call(settings_of(**server), "GET", f"{below}/openapi.json", dict)))


@main.command(context_settings=_PASS_THROUGH, options_metavar="")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PSQL OPTIONS]")
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database.

    As in: benana psql -c "UPDATE plugins SET status = 'inactive' WHERE name = 'hello'"
    """
    from app.cli.local_database import psql_call, running_database
    from app.postgres.server import find_psql

    settings = Settings.from_environment()
    url = running_database(settings)
    if url is None:
        raise _Failure(
            f"The PostgreSQL of {settings.data_dir} does not run: start it with `benana serve`, "
            "or set DATABASE_URL or BENANA_DATA_DIR."
        )
    program = find_psql()
    if program is None:
        if settings.database_url:
            raise _Failure("There is no psql on this machine; the database is at DATABASE_URL.")
        click.echo(url)
        raise _Failure("There is no psql on this machine; the database is at the address above.")
    _exec(program, *psql_call(url, arguments))


def _where_it_is_served(settings: Settings, name: str, folder: Path) -> str:
    """Return what is true of a new plugin: whether a server serves it, or what is to be done."""
    from app.cli.client import ApiError, NobodyAnswersError, call
    from app.cli.target import Target

    shown = Target.of(settings).shown.removeprefix("http://")
    deadline = time.monotonic() + NEW_SECONDS
    while True:
        try:
            shown_plugin = call(settings, "GET", f"/plugins/{name}", dict, NEW_SECONDS)
        except NobodyAnswersError:
            return "No server runs; start it with `benana serve`, and call:"
        except ApiError as error:
            if error.status != 404:
                return f"{error}\nOnce it is served, call:"
        else:
            if shown_plugin.get("source_path") == str(folder):
                return f"The server at {shown} serves it:"
            source = plain(str(shown_plugin.get("source_path")))
            return f"The server at {shown} has one of this name already, of {source}:"
        if time.monotonic() > deadline:
            return (
                f"The server at {shown} has not registered it yet. Does it watch "
                f"{folder.parent} (BENANA_PLUGINS_DIR, BENANA_WATCH)? Then call:"
            )
        time.sleep(0.05)


def _change(settings: Settings, name: str, action: str, *, as_json: bool) -> None:
    from app.cli.client import call

    path = f"/plugins/{quote(name, safe='')}/{action}"
    answer = call(settings, "POST", path, dict)
    if as_json:
        click.echo(show_json(answer))
    else:
        click.echo(f"{click.style(name, bold=True)} is {status_text(str(answer.get('status')))}")
        if note := answer.get("note"):
            click.echo(plain(str(note)))


def _exec(
    program: Path, arguments: Iterable[str], environ: Mapping[str, str] | None = None
) -> Never:
    try:
        os.execve(  # noqa: S606 - to become the program is what is wanted
            program, [str(program), *arguments], {**os.environ, **(environ or {})}
        )
    except OSError as error:
        raise _Failure(f"{program} cannot be run: {error.strerror}.") from None
