"""What a query string asks for, as psycopg2.sql: filters, order, pages and aggregates.

Names come from the table's own columns and are quoted with `sql.Identifier`, values are read by
the column's type and quoted with `sql.Literal`; no text of a request becomes SQL.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import falcon
from psycopg2 import sql

from .columns import ID, Column, Table
from .params import Params, bad_query, one_of
from .values import MAX_BIGINT, TYPES, show

PAGING = ("numbers", "sort", "page", "page_size")
AGGREGATE = ("metrics", "group_by", *PAGING)


@dataclass(frozen=True, slots=True)
class Page:
    """A page, its number counted from 1, and its size in rows."""

    number: int
    size: int

    @property
    def clause(self) -> sql.Composable:
        offset = (self.number - 1) * self.size
        return sql.SQL(" LIMIT {} OFFSET {}").format(sql.Literal(self.size), sql.Literal(offset))

    def total(self, found: int, count: Callable[[], int]) -> int:
        """Return how many rows all pages have, of which this one has `found`.

        The rows are only counted when this page does not tell.
        """
        if 0 < found < self.size or (found == 0 and self.number == 1):
            return (self.number - 1) * self.size + found
        return count()


@dataclass(frozen=True, slots=True)
class Metric:
    """One aggregate: `label` is how the request wrote it, `count` or `avg:wind`."""

    label: str
    expression: sql.Composable


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What an aggregate asks for: metrics, group columns, and the order of the answer's rows."""

    metrics: tuple[Metric, ...]
    groups: tuple[Column, ...]
    order: sql.Composable


def parse_page(req: falcon.Request, page_size: int, max_page_size: int) -> Page:
    """Read `page` and `page_size`.

    Raises:
        falcon.HTTPBadRequest: one of them is no whole number, out of range, or given twice.
    """
    for name in ("page", "page_size"):
        one_of(req.params, name, None)
    size = req.get_param_as_int("page_size", min_value=1, max_value=max_page_size)
    size = page_size if size is None else size
    number = req.get_param_as_int("page", min_value=1, max_value=MAX_BIGINT // size)
    return Page(1 if number is None else number, size)


def parse_list(req: falcon.Request, name: str) -> list[str]:
    """Read a parameter that lists names with commas, once or several times; absent is empty."""
    text = ",".join(req.get_param_as_list(name) or [])
    return list(dict.fromkeys(text.split(","))) if text else []


def parse_filters(params: Params, table: Table, known: tuple[str, ...]) -> sql.Composable:
    """Return the WHERE clause of a query string, empty without filters.

    A filter is `COLUMN__OPERATOR=VALUE`; all of them must hold. `known` are the parameters
    that are none: with no `__` in their names they cannot be mistaken for one.

    Raises:
        falcon.HTTPBadRequest: an unknown column or operator, or a value of another type.
    """
    conditions = []
    for key, values in params.items():
        if key in known:
            continue
        name, separator, operator = key.rpartition("__")
        if not separator:
            expected = ", ".join((*known, "a filter such as NAME__eq=VALUE"))
            raise bad_query(f"Found the parameter {show(key)}, expected {expected}.")
        column = find_column(table, name)
        if operator not in _OPERATORS:
            raise bad_query(
                f'Column "{name}": found the operator {show(operator)}, '
                f"expected {', '.join(_OPERATORS)}."
            )
        for value in [values] if isinstance(values, str) else values:
            try:
                conditions.append(_OPERATORS[operator](column, value))
            except ValueError as error:
                raise bad_query(str(error)) from None
    if not conditions:
        return sql.SQL("")
    return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)


def find_column(table: Table, name: str) -> Column:
    """Return a column of the table, `id` among them.

    Raises:
        falcon.HTTPBadRequest: there is none of that name.
    """
    column = table.find(name)
    if column is None:
        raise bad_query(
            f'Table "{table.name}": found the column {show(name)}, expected {table.column_names}.'
        )
    return column


def parse_sort(names: Iterable[str], table: Table) -> sql.Composable:
    """Return the ORDER BY clause of `-a,b`; nulls come last, and `id` decides between equals.

    Raises:
        falcon.HTTPBadRequest: an unknown column.
    """
    keys = []
    for name in names:
        column = find_column(table, name.removeprefix("-"))
        keys.append(_direction(sql.Identifier(column.name), name))
    keys.append(sql.Identifier(ID))
    return sql.SQL(" ORDER BY ") + sql.SQL(", ").join(keys)


def parse_aggregate(req: falcon.Request, table: Table) -> Aggregate:
    """Read `metrics`, `group_by` and `sort`, which takes any of the metrics and groups.

    Raises:
        falcon.HTTPBadRequest: an unknown function or column, or a function that does not take
            the column's type.
    """
    groups = tuple(find_column(table, name) for name in parse_list(req, "group_by"))
    metrics = tuple(_metric(label, table) for label in parse_list(req, "metrics") or ["count"])
    # The answer's columns by position: groups first, then metrics. Where a column is named like
    # a metric (`count`), the metric is meant.
    labels = [*(column.name for column in groups), *(metric.label for metric in metrics)]
    position = {label: number for number, label in enumerate(labels, start=1)}
    keys = []
    for name in parse_list(req, "sort"):
        label = name.removeprefix("-")
        if label not in position:
            raise bad_query(f"sort: found {show(label)}, expected {', '.join(position)}.")
        keys.append(_direction(sql.Literal(position[label]), name))
    keys += [sql.Literal(number) for number in range(1, len(groups) + 1)]
    order = sql.SQL(" ORDER BY ") + sql.SQL(", ").join(keys) if keys else sql.SQL("")
    return Aggregate(metrics, groups, order)


def _direction(key: sql.Composable, name: str) -> sql.Composable:
    return key + sql.SQL(" DESC NULLS LAST" if name.startswith("-") else " NULLS LAST")


def _metric(label: str, table: Table) -> Metric:
    function, separator, name = label.partition(":")
    if label == "count":
        return Metric(label, sql.SQL("count(*)"))
    if function not in _FUNCTIONS or not separator:
        raise bad_query(
            f"metrics: found {show(label)}, expected count or {', '.join(_FUNCTIONS)} "
            "with a column, such as avg:NAME."
        )
    column = find_column(table, name)
    template, types = _FUNCTIONS[function]
    if column.type.name not in types:
        raise bad_query(
            f'metrics: found {function} of column "{name}", which is {column.type.name}; '
            f"{function} takes {', '.join(types)}."
        )
    return Metric(label, sql.SQL(template).format(sql.Identifier(name)))


_ORDERED = ("text", "integer", "number", "double", "date", "timestamp")
_NUMERIC = tuple(kind.name for kind in TYPES.values() if kind.is_numeric)
_FUNCTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "count": ("count({})", (*_ORDERED, "boolean")),
    "sum": ("sum({})", _NUMERIC),
    "avg": ("avg({})::double precision", _NUMERIC),
    "min": ("min({})", _ORDERED),
    "max": ("max({})", _ORDERED),
}


def _compare(operator: str) -> Callable[[Column, str], sql.Composable]:
    template = sql.SQL(f"{{}} {operator} {{}}")

    def condition(column: Column, text: str) -> sql.Composable:
        return template.format(sql.Identifier(column.name), sql.Literal(column.from_text(text)))

    return condition


def _contains(column: Column, text: str) -> sql.Composable:
    if column.type.name != "text":
        raise ValueError(f'Column "{column.name}" is {column.type.name}; contains takes text.')
    return sql.SQL("strpos({}, {}) > 0").format(
        sql.Identifier(column.name), sql.Literal(column.from_text(text))
    )


def _in(column: Column, text: str) -> sql.Composable:
    # One line of CSV, so that a value with a comma can be quoted.
    try:
        values = next(csv.reader([text], strict=True), [])
    except csv.Error:
        values = []
    if not values:
        raise ValueError(
            f'Column "{column.name}": found in {show(text)}, expected values such as a,"b,c".'
        )
    literals = [sql.Literal(column.from_text(value)) for value in values]
    return sql.SQL("{} IN ({})").format(sql.Identifier(column.name), sql.SQL(", ").join(literals))


def _null(column: Column, text: str) -> sql.Composable:
    if text not in ("true", "false"):
        raise ValueError(
            f'Column "{column.name}": found null {show(text)}, expected true or false.'
        )
    template = "{} IS NULL" if text == "true" else "{} IS NOT NULL"
    return sql.SQL(template).format(sql.Identifier(column.name))


_OPERATORS: Mapping[str, Callable[[Column, str], sql.Composable]] = {
    "eq": _compare("="),
    "ne": _compare("IS DISTINCT FROM"),
    "lt": _compare("<"),
    "le": _compare("<="),
    "gt": _compare(">"),
    "ge": _compare(">="),
    "contains": _contains,
    "in": _in,
    "null": _null,
}
