"""Tables and their columns, as a request names them and as PostgreSQL describes them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from psycopg2 import sql

from .answers import NamedColumns, ShownColumn
from .narrow import narrow_type
from .values import TYPES, ColumnType, Value, show

ID = "id"
"""The bigint identity that each table has; PostgreSQL fills it."""

NAME_RULE = "1 to 63 of a-z, 0-9 and _, a letter first"

# PostgreSQL gives each table columns of these names.
_SYSTEM_NAMES = frozenset(("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"))

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TYPE_OF_SQL = {kind.sql: kind for kind in TYPES.values()}


def is_name(text: str) -> bool:
    """Tell whether a text may name a table or a column."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; a required one takes no null.

    One that `is_filled` is PostgreSQL's to fill, a generated one or an identity: it is read only.
    One that `has_default` gets it in a row that leaves the column out.
    """

    name: str
    type: ColumnType
    required: bool = False
    is_filled: bool = False
    has_default: bool = False

    def as_json(self) -> ShownColumn:
        shown: ShownColumn = {"name": self.name, "type": self.type.name, "required": self.required}
        if self.is_filled:
            shown["generated"] = True
        if self.has_default:
            shown["default"] = True
        return shown

    def from_text(self, text: str) -> Value:
        """Return the value that a text of a query stands for.

        Raises:
            ValueError: a sentence with the column, what was found and what was expected.
        """
        try:
            return self.type.read(text)
        except ValueError:
            raise ValueError(self._refuse(text)) from None

    def from_json(self, value: object, numbers_as_text: bool = False) -> Value | None:
        """Return the value that a JSON value stands for; null is None.

        Args:
            value: as it was parsed, a decimal as `Decimal`.
            numbers_as_text: whether a number may come as a text.

        Raises:
            ValueError: a sentence with the column, what was found and what was expected.
        """
        if value is None and not self.required:
            return None
        if numbers_as_text and self.type.is_numeric and isinstance(value, str):
            return self._read_written(value)
        # `type(...)` and not `isinstance`: True is an int to Python, not to JSON.
        if type(value) not in self.type.json:
            raise ValueError(self._refuse(value))
        try:
            found = self.type.fit(value) if self.type.fit else self.type.read(str(value))
        except ValueError:
            raise ValueError(self._refuse(value)) from None
        if self.type.keeps and not self.type.keeps(found):
            raise ValueError(self._refuse(value))
        return found

    def _read_written(self, text: str) -> Value:
        """Return the number of a text that comes back as it was written."""
        if self.type.form and not re.fullmatch(self.type.form, text):
            raise ValueError(
                self._refuse(text, ", without a plus, an exponent, spaces, or zeros in front")
            )
        return self.from_text(text)

    def _refuse(self, found: object, rule: str = "") -> str:
        return f'Column "{self.name}": found {show(found)}, expected {self.type.expected}{rule}.'


ID_COLUMN = Column(ID, TYPES["integer"], required=True, is_filled=True)


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its columns in order, without `id`.

    `unseen` are those of other types, which somebody has added in psql: their names, and the types.
    `stands_for` is the name of the table that this one is a copy of, for a dry run.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    unseen: Mapping[str, str] = field(default_factory=dict)
    stands_for: str = ""

    def find(self, name: str) -> Column | None:
        """Return the column of a name, `id` among them, or None."""
        everything = (ID_COLUMN, *self.columns)
        return next((column for column in everything if column.name == name), None)

    @property
    def written(self) -> tuple[Column, ...]:
        """The columns that take values, in order."""
        return tuple(column for column in self.columns if not column.is_filled)

    @property
    def identifier(self) -> sql.Composable:
        """The quoted name, with its schema."""
        return sql.Identifier(self.schema, self.name)

    @property
    def column_names(self) -> str:
        """All names that a query can use, as an error's sentence lists them."""
        return ", ".join((ID, *(column.name for column in self.columns)))

    def as_json(self) -> NamedColumns:
        return {"name": self.name, "columns": [column.as_json() for column in self.columns]}


def column_from_catalog(
    name: str, sql_type: str, required: bool, is_filled: bool, has_expression: bool
) -> Column | None:
    """Return a column that PostgreSQL describes, or None if it is not one of this plugin's.

    Somebody can add a jsonb column in psql: it stays there, unseen.
    """
    if not is_name(name) or name == ID:
        return None
    kind = _TYPE_OF_SQL.get(sql_type) or narrow_type(sql_type)
    if kind is None:
        return None
    if is_filled:
        return Column(name, kind, is_filled=True)
    return Column(name, kind, required, has_default=has_expression)


def columns_from_json(body: object, max_columns: int) -> tuple[Column, ...]:
    """Read the columns of a new table: `{"columns": [{"name", "type", "required"?}, …]}`.

    Raises:
        ValueError: a sentence that says what was found and what was expected.
    """
    entries = body["columns"] if isinstance(body, dict) and body.keys() == {"columns"} else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f'Found {show(body)}, expected {{"columns": [{{"name": …, "type": …}}, …]}}.'
        )
    columns = tuple(_column_from_json(entry) for entry in entries)
    check_names([column.name for column in columns], max_columns)
    return columns


def _column_from_json(entry: object) -> Column:
    if not isinstance(entry, dict) or not {"name", "type"} <= entry.keys() <= {
        "name",
        "type",
        "required",
    }:
        raise ValueError(
            f"Column {show(entry)}: expected an object with name, type and, if need be, required."
        )
    name, kind, required = entry["name"], entry["type"], entry.get("required", False)
    if type(name) is not str:  # what it may be is checked for all columns at once
        raise ValueError(f"Found the column name {show(name)}, expected {NAME_RULE}.")
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(
            f"Column {show(name)}: found the type {show(kind)}, expected {', '.join(TYPES)}."
        )
    if required is not True and required is not False:
        raise ValueError(
            f"Column {show(name)}: found required {show(required)}, expected true or false."
        )
    return Column(name, TYPES[kind], required)


def check_names(names: Sequence[str], max_columns: int) -> None:
    """Check the column names of a new table.

    Raises:
        ValueError: names all that cannot be used, or says that there are too many.
    """
    if len(names) > max_columns:
        raise ValueError(f"Found {len(names)} columns, expected {max_columns} at most.")
    counts = Counter(names)
    bad = [name for name in counts if not is_name(name)]
    system = [name for name in counts if name in _SYSTEM_NAMES]
    repeated = [name for name in counts if counts[name] > 1]
    sentences = []
    if bad:
        sentences.append(f"Found the column name{_list(bad)}, expected {NAME_RULE}.")
    if ID in counts:
        sentences.append(f'The column name "{ID}" is taken: each table has one of its own.')
    if system:
        sentences.append(f"PostgreSQL keeps for itself the column name{_list(system)}.")
    if repeated:
        sentences.append(f"Found the column name{_list(repeated)} twice or more, expected it once.")
    if sentences:
        raise ValueError(" ".join(sentences))


def _list(names: Sequence[str]) -> str:
    return ("s " if len(names) > 1 else " ") + ", ".join(map(show, names))


def may_name_column(name: str) -> bool:
    """Tell whether a new table can have a column of this name."""
    return is_name(name) and name != ID and name not in _SYSTEM_NAMES
