"""Which columns of a table the fields of a CSV are for."""

from collections.abc import Sequence

from .columns import NAME_RULE, Column, Table, is_name
from .header import CsvFile
from .hints import other_delimiter
from .names import may_have_become
from .spool import bad_csv
from .values import show

_LISTED = 100


def match_columns(table: Table, csv_file: CsvFile, names: Sequence[str]) -> list[Column]:
    """Return the columns that a CSV's names mean, in its order; without a header all of them.

    Args:
        table: the table that takes the rows.
        csv_file: the file.
        names: its header, perhaps renamed; empty without one.

    Raises:
        falcon.HTTPUnprocessableEntity: unknown or repeated columns, or a required one missing, or
            another number of fields than of columns; all are named.
    """
    written = table.written
    expected = ", ".join(column.name for column in written)
    if csv_file.header is None:
        if csv_file.fields != len(written):
            several = "s" if csv_file.fields > 1 else ""
            raise bad_csv(
                f"Line 1: found {csv_file.fields} field{several} and no header, "
                f"expected {expected}.{other_delimiter(csv_file)}"
            )
        return list(written)
    columns = {column.name: column for column in written}
    unknown = [name for name in dict.fromkeys(names) if name not in columns]
    repeated = [name for name in columns if names.count(name) > 1]
    required = [each.name for each in written if each.required and not each.has_default]
    missing = [name for name in required if name not in names]
    problems = []
    if unknown:
        listed = ", ".join(map(show, unknown[:_LISTED]))
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        several = "s" if len(unknown) > 1 else ""
        problems.append(f"found the column{several} {listed}{more}, expected some of {expected}")
    problems += [reason for name in unknown if (reason := _why_unknown(table, name))]
    problems += _ambiguous(csv_file.header, names, list(columns))
    problems += [f'found the column "{name}" twice, expected it once' for name in repeated]
    if missing:
        problems.append(f"found no {', '.join(missing)}, expected all required columns")
    if problems:
        raise bad_csv(f"Line 1: {'; '.join(problems)}.{other_delimiter(csv_file)}")
    return [columns[name] for name in names]


def _ambiguous(header: Sequence[str], names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Say which renamed columns may be meant for others.

    Of a header with `Sum` and `sum `, one became `sum_2`. If a later file has one of both alone,
    nothing tells which of the columns it is for.
    """
    found = []
    for place, (name, renamed) in enumerate(zip(header, names, strict=True), start=1):
        possible = may_have_become(name, place, columns) if name != renamed else []
        if len(possible) > 1 and not set(possible) <= set(names):
            found.append(
                f"{show(name)} may be {' or '.join(possible)}: write the column's own name"
            )
    return found


def _why_unknown(table: Table, name: str) -> str:
    """Say why a column that is there takes no values; empty if it is not there."""
    if table.find(name):
        return f'"{name}" is filled by PostgreSQL itself: leave it out'
    if name not in table.unseen:
        return ""
    if not is_name(name):
        return f"{show(name)} is a name that this plugin does not know: it takes {NAME_RULE}"
    return f'"{name}" is of the type {table.unseen[name]}, which this plugin does not read or write'
