"""Export gives the field texts that an import of `powertable` took, whatever the file is like."""

import csv
import datetime
import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.powertable import Client, import_csv

Field = str | None
"""A text, or None for nothing at all between two delimiters."""

_QUOTED_OR_NOT = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n)')


@dataclass(frozen=True)
class File:
    """A CSV: its fields, and how they are written."""

    rows: list[list[Field]]
    delimiter: str
    quote: str | None
    line_end: str
    ends: bool
    encoding: str
    says_charset: bool
    says_delimiter: bool
    header: bool
    quotes_all: bool

    def body(self) -> bytes:
        width = len(self.rows[0])
        names: list[list[Field]] = [[f"c{n}" for n in range(width)]] if self.header else []
        lines = [
            self.delimiter.join(self._write(field, row) for field in row)
            for row in [*names, *self.rows]
        ]
        text = self.line_end.join(lines) + (self.line_end if self.ends else "")
        return text.encode(self.encoding)

    @property
    def media(self) -> str:
        charset = f"; charset={self.encoding}" if self.says_charset else ""
        return f"text/csv{charset}" + ("" if self.header else "; header=absent")

    @property
    def query(self) -> dict[str, str]:
        said = {"delimiter": self.delimiter} if self.says_delimiter else {}
        return {"create": "true", "quote": self.quote or "none", **said}

    def _write(self, field: Field, row: list[Field]) -> str:
        if field is None or self.quote is None:
            return field or ""
        special = {self.delimiter, self.quote, "\r", "\n"} & set(field)
        if special or field in ("", "\\.") or self.quotes_all:
            return self.quote + field.replace(self.quote, self.quote * 2) + self.quote
        return field


def texts(encoding: str, forbidden: str) -> st.SearchStrategy[str]:
    characters = st.characters(
        codec="utf-8" if encoding.startswith("utf") else encoding, exclude_characters="\0"
    )
    awkward = st.sampled_from(["'", '"', ",", ";", "\t", "|", "\n", "\r", "\r\n", "\\.", " ", "1"])
    parts = st.lists(st.one_of(awkward, characters), max_size=6).map("".join)
    return parts.map(lambda text: text.translate(dict.fromkeys(map(ord, forbidden)))).filter(
        lambda text: "".join(text) != "\\." or not forbidden
    )


def number_texts() -> st.SearchStrategy[str]:
    return st.one_of(
        st.integers(-(10**20), 10**20).map(str),
        st.integers(-99, 99).map(str),
        st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
        st.from_regex(r"-?[0-9]{1,3}(\.[0-9]{0,3})?([eE][+-]?[0-9])?", fullmatch=True),
    )


def time_texts() -> st.SearchStrategy[str]:
    dates = st.dates().map(str)
    offsets = st.from_regex(r"(Z|[+-](0[0-9]|1[0-9]|2[0-3])(:?[0-5][0-9])?)?", fullmatch=True)
    return st.one_of(
        dates,
        dates.map(lambda text: text.replace("-", "/")),
        st.builds(
            lambda moment, mark, offset: moment.isoformat(mark) + offset,
            st.datetimes(),
            st.sampled_from("T "),
            offsets,
        ),
        st.from_regex(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]( [0-2][0-9]:[0-6][0-9])?", fullmatch=True),
    )


@st.composite
def files(draw: st.DrawFn) -> File:
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin1"]))
    quote = draw(st.sampled_from(['"', "'", None]))
    delimiter = draw(st.sampled_from(",;\t|^: "))
    header = draw(st.booleans())
    width = draw(st.integers(1, 4))
    # What no quote can keep is left out of the texts.
    forbidden = "" if quote else f"\r\n{delimiter}"
    kinds = [
        texts(encoding, forbidden),
        number_texts(),
        st.integers(-99, 99).map(str),
        time_texts(),
        st.dates().map(str),
        st.sampled_from(["true", "false"]),
    ]
    columns = []
    for _ in range(width):
        kind = st.sampled_from(kinds).flatmap(lambda kind: kind)
        kind = draw(st.sampled_from([*kinds, kind]))
        if not quote:
            kind = kind.filter(lambda text: text != "" and not set(text) & set(forbidden))
        columns.append(st.one_of(st.none(), kind))
    rows = draw(st.lists(st.tuples(*columns).map(list), min_size=1, max_size=6))
    return File(
        rows,
        delimiter,
        quote,
        draw(st.sampled_from(["\n", "\r\n", "\r"])),
        draw(st.booleans()),
        encoding,
        encoding in ("utf-16-be", "latin1") or draw(st.booleans()),
        not header or width == 1 or delimiter not in ",;\t|" or draw(st.booleans()),
        header,
        draw(st.booleans()),
    )


def read_export(text: str) -> list[list[Field]]:
    """Read what an export wrote, with nothing told from the empty text."""
    rows: list[list[Field]] = [[]]
    for match in _QUOTED_OR_NOT.finditer(text):
        quoted, plain, end = match.groups()
        rows[-1].append(quoted.replace('""', '"') if quoted is not None else plain or None)
        if end == "\n":
            rows.append([])
    return rows[1:-1]


def expected(field: Field, kind: str) -> Any:
    """What an import took as a column's type: a text but for dates and times, which are moments."""
    if kind == "text" or not field:
        return field if kind == "text" else None
    if kind == "date":
        return datetime.date.fromisoformat(field.replace("/", "-"))
    if kind == "timestamp":
        moment = datetime.datetime.fromisoformat(field)
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return field


def check(client: Client, file: File) -> None:
    """Import a file twice and export it each time, and compare; then import what was exported."""
    rows = list(file.rows)
    while len(rows[0]) == 1 and rows and rows[-1] == [None]:
        rows.pop()  # blank lines at the end
        if not rows:
            return
    body = file.body()
    answer = import_csv(client, "t", body, media=file.media, status=201, **file.query).json
    try:
        kinds = [column["type"] for column in answer["columns"]]
        assert answer["imported"] == len(rows)
        assert answer["delimiter"] == file.delimiter
        exported = client.get("/powertable/t/export").body
        found = read_export(exported.decode())
        assert [
            [expected(field, kind) for field, kind in zip(row, kinds, strict=True)] for row in found
        ] == [
            [expected(field, kind) for field, kind in zip(row, kinds, strict=True)] for row in rows
        ]
        for number, kind in enumerate(kinds):
            values = [row[number] for row in rows if row[number]]
            assert kind != "text" or not values or not all(map(is_plain_number, values))
        query = {name: value for name, value in file.query.items() if name != "create"}
        import_csv(client, "t", body, media=file.media, **{**query, "delimiter": file.delimiter})
        names, _, lines = exported.partition(b"\n")
        assert client.get("/powertable/t/export").body == names + b"\n" + lines + lines
    finally:
        client.delete("/powertable/t")
    import_csv(client, "t", exported, create="true", delimiter=",", status=201)
    again = client.get("/powertable/t/export").body
    client.delete("/powertable/t")
    assert again == exported


def is_plain_number(text: Field) -> bool:
    return re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text or "") is not None


@settings(max_examples=50, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(file=files())
@example(file=File([["0"], [""]], ",", '"', "\n", False, "utf-8", False, True, False, False))
def test_an_export_gives_the_field_texts_that_an_import_took(loaded: Client, file: File) -> None:
    check(loaded, file)


@pytest.mark.soak
@settings(max_examples=1200, deadline=None, suppress_health_check=list(HealthCheck))
@given(file=files())
def test_an_export_gives_them_for_a_thousand_files(loaded: Client, file: File) -> None:
    check(loaded, file)


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.text("ab\"',;\r\n\\.0", max_size=14), create=st.booleans())
def test_every_refusal_names_the_line(loaded: Client, body: str, create: bool) -> None:
    look(loaded, body, create)


@pytest.mark.soak
@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.text("ab\"',;\r\n\\.0", max_size=20), create=st.booleans())
def test_every_refusal_names_the_line_of_thousands(loaded: Client, body: str, create: bool) -> None:
    look(loaded, body, create)


def look(client: Client, body: str, create: bool) -> None:
    """Import what may be a CSV: what was taken is what Python's reader sees."""
    if not create:
        columns = [{"name": name, "type": "text"} for name in ("a", "b")]
        client.put_json("/powertable/t", {"columns": columns}, status=201)
    query = {"create": "true"} if create else {}
    answer = import_csv(client, "t", body.encode(), status="*", **query)
    if answer.status_int >= 400:
        assert answer.status_int == 422
        assert "Line " in answer.json["detail"], answer.json["detail"]
    else:
        lines = body.rstrip("\r\n").splitlines(keepends=True)
        rows = list(csv.reader(lines, delimiter=answer.json["delimiter"], strict=True))
        assert answer.json["imported"] == len(rows) - 1
    if not create or answer.status_int < 400:
        client.delete("/powertable/t")
