"""`benana check`: plugin folders are compiled and tried, without a server."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from app.cli.local_database import running_database
from app.cli.terminal import echo_failure, echo_table, fault_line, plain, status_text
from app.errors import DatabaseUnavailableError, PluginError
from app.publishing.discovery import list_left_out, read_source, rules_of
from app.publishing.trials.held import accept_in_use
from app.publishing.trials.trial import TrialRunner
from app.settings import Settings


def check_folders(paths: Sequence[Path]) -> bool:
    """Try folders, print what comes of each, and return whether all are valid plugins."""
    settings = Settings.from_environment()
    runner = TrialRunner(running_database(settings), memory_mb=settings.trial_memory_mb)
    failed = False
    try:
        for number, path in enumerate(paths):
            if number:
                click.echo()
            folder = Path(os.path.abspath(path))  # noqa: PTH100 - a link has the plugin's name
            try:
                source = read_source(folder.parent, folder, folder.name, settings.max_source_mb)
                _, report = runner.run(source)
                if report.in_use is not None:
                    report = accept_in_use(settings.artifacts_dir, source, report, None)
            except PluginError as error:
                failed = True
                echo_failure(folder.name, fault_line(error.as_record()))
            except DatabaseUnavailableError as error:
                failed = True
                echo_failure(folder.name, plain(str(error)))
            else:
                title, version = click.style(folder.name, bold=True), report.metadata.version
                click.echo(f"{title}  {status_text('ok')}  version {plain(version)}")
                endpoints = [
                    (endpoint.method, endpoint.path, endpoint.handler)
                    for endpoint in report.endpoints
                ]
                echo_table(endpoints or [("no routes",)], indent="  ")
                for fault in report.uncompiled:
                    click.echo(f"  not compiled, since no import can name it: {plain(fault)}")
                if report.in_use is not None:
                    said = plain(report.in_use["message"])
                    click.echo(f"  tried up to what its served version holds: {said}")
            _echo_left_out(list_left_out(folder, rules_of(folder)))
    finally:
        runner.close()
    return not failed


def _echo_left_out(paths: Sequence[tuple[str, str]]) -> None:
    if paths:
        click.echo("  left out:")
        echo_table([(plain(path), f"by {plain(by)}") for path, by in paths], indent="    ")
