"""What the commands print: tables, errors and states, with colours on a terminal alone."""

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

_COLOURS = {
    "ok": "green",
    "active": "green",
    "inactive": "yellow",
    "degraded": "yellow",
    "failed": "red",
}
_LEAST_ROOM = 20


def show_json(answer: object) -> str:
    """Return an answer as indented JSON."""
    return json.dumps(answer, indent=2, ensure_ascii=False)


def status_text(status: str) -> str:
    """Return a status in its colour."""
    return click.style(status, fg=_COLOURS[status]) if status in _COLOURS else plain(status)


def plain(text: str) -> str:
    """Return a plugin's text as one line that cannot steer the terminal."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())


def fault_line(error: Mapping[str, Any]) -> str:
    """Return an error as one line: phase, place, message."""
    place = f" {place_of(error)}".rstrip()
    return plain(f"{error['phase']}{place}: {error['message']}")


def place_of(error: Mapping[str, Any]) -> str:
    """Return the place of an error as `file:line`, as `file`, or empty."""
    file, line = error.get("file"), error.get("line")
    if not file:
        return ""
    return f"{file}:{line}" if line else str(file)


def echo_failure(name: str, fault: str) -> None:
    """Print the name of what failed, and below it the whole of what is wrong."""
    click.echo(f"{click.style(plain(name), bold=True)}  {status_text('failed')}\n  {fault}")


def echo_table(
    rows: Sequence[Sequence[str]],
    header: Sequence[str] = (),
    *,
    right: Iterable[int] = (),
    indent: str = "",
) -> None:
    """Print aligned columns; on a terminal, a last one that is too long is cut.

    Args:
        rows: the cells, at least one row; the second may be a status and is coloured then.
        header: the columns' names, or nothing.
        right: which columns hold numbers, from 0.
        indent: what stands before each line.
    """
    lines = [tuple(map(plain, row)) for row in ([header, *rows] if header else rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    room = max(room - len(indent) - sum(widths[:-1]) - 2 * len(widths[:-1]), _LEAST_ROOM)
    for number, line in enumerate(lines):
        *cells, last = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        last = last.rstrip()
        cells.append(last if len(last) <= room else f"{last[: room - 3]}...")
        if header and number == 0:
            click.secho(indent + "  ".join(cells).rstrip(), dim=True)
            continue
        if len(cells) > 1 and line[1] in _COLOURS:
            cells[1] = click.style(cells[1], fg=_COLOURS[line[1]])
        click.echo(indent + "  ".join(cells).rstrip())


def echo_reasons(workers: list[dict[str, Any]]) -> None:
    """Print what is not as it should be, a line for each reason, and how many workers say it."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for worker in workers:
        for reason in worker.get("reasons") or ():
            about = f"{reason['plugin']}: {reason['what']}" if reason["plugin"] else reason["what"]
            status = "degraded" if reason.get("degrades", True) else "note"
            said.setdefault((status, str(worker["host"]), about), []).append(reason["since"])
    if said:
        click.echo()
    for (status, host, about), since in said.items():
        first = min(since)[:19].replace("T", " ")
        where = f"{len(since)} of {sum(w['host'] == host for w in workers)} workers of {host}"
        click.echo(f"{status_text(status)}  {plain(f'{about} ({where}, since {first} UTC)')}")
