"""The options of each command that calls a server."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from app.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def calls_a_server(command: Command) -> Command:
    """Give a command the options that say which server it calls, and how it knows it by."""
    for option in (
        click.option("--insecure", is_flag=True, help="Do not check the server's certificate."),
        click.option("--ca", metavar="FILE", help="The CA of its certificate (BENANA_CA)."),
        click.option("--server", metavar="URL", help="The server to call (BENANA_URL)."),
    ):
        command = option(command)
    return command


def settings_of(*, server: str | None, ca: str | None, insecure: bool) -> Settings:
    """Return the settings, with what the options of `calls_a_server` say instead."""
    settings = Settings.from_environment()
    return replace(
        settings,
        server_url=server or settings.server_url,
        ca_file=ca or settings.ca_file,
        insecure=insecure or settings.insecure,
    )
