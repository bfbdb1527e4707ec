"""What `powertable` refuses: nothing is changed silently, and each hint fits what was sent."""

import bz2
import gzip
import io
import itertools
import lzma
import zipfile
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import webtest
from psycopg2.extensions import cursor as Cursor

from tests.support.powertable import Client, import_csv, make, powertable
from tests.support.waiting import wait_until


def alter(client: Client, psql: Cursor, change: str) -> None:
    """Make the table `t` and change it as psql does."""
    make(client, "t", a="text")
    psql.execute(f"ALTER TABLE t {change}")


def refusal(client: Client, body: bytes, **query: Any) -> str:
    """Return why an import is refused; `t` has as many rows as before, or is not there."""
    before = client.get("/powertable").json
    detail = import_csv(client, "t", body, status=422, **query).json["detail"]
    assert client.get("/powertable").json == before
    return str(detail)


# --- what a column would change ------------------------------------------------------------------

CHANGED = {
    "date": [
        *("2024-01-31 10:00", "2024-01-31T23:59:59Z", "2024-01-31 00:00:00", "today", "20240131"),
        *("Jan 31 2024", "31.01.2024", " 2024-01-31", "2024-1-31", "J2460341", "epoch"),
    ],
    "integer": ["0042", "+1", "-0", "1.0", "1e2", " 1", "1 ", "0x1F", "1_000", "0b1"],
    "number": ["0042", "+1", "-0", "-0.00", ".5", "1.", "1e5", "0e1", " 1", "1_000", "NaN"],
    "boolean": ["t", "f", "yes", "no", "on", "off", "1", "0", "TRUE", "True", " true", "tru"],
    "timestamp": [
        *("2024-01-31 10:00:00.1234567", "2024-01-31 23:59:60", "2024-01-31 24:00:00", "now"),
        *("2024-01-31 10:00 America/New_York", "2024-01-31 10:00 EST", "Jan 31 2024", "infinity"),
        *("2024-01-31 10:00+05:30:15", "2024-01-31 10:00:00.12345600001", "2024-01-31 10"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in CHANGED.items() for text in texts]
)
def test_a_field_that_a_column_would_change_is_refused_with_its_line(
    client: Client, kind: str, text: str
) -> None:
    make(client, "t", x=kind, y="text")
    for body in (f'y,x\n"a\nb",\nc,{text}\n', f'y,x\n"a\nb",\nc,"{text}"', f"x\n\n\n{text}"):
        for query in ({}, {"dry_run": "true"}):
            detail = refusal(client, body.encode(), **query)
            assert detail.startswith(f'Line 4, column "x": found "{text}", expected '), detail
            assert "a column of text keeps what is written" in detail
    # A table that is made of it keeps it, or its moment.
    answer = import_csv(client, "u", f"x,y\n{text},\n".encode(), create="true", status=201).json
    if answer["columns"][0]["type"] == "timestamp":
        assert kind == "date"
    else:
        assert client.get("/powertable/u/export").text == f"x,y\n{text},\n"


def test_what_comes_back_as_it_was_written_is_taken(client: Client) -> None:
    make(client, "t", i="integer", n="number", b="boolean", d="date", x="double", s="text")
    lines = [
        "9223372036854775807,-0.05,true,0001-01-01,0.5,0042",
        "-9223372036854775808,1.100,false,9999-12-31,1e+100,",
        f"0,{'9' * 1000}.{'9' * 1000},,,,",
        ",,,,,",
    ]
    body = "\n".join(["i,n,b,d,x,s", *lines, ""])
    import_csv(client, "t", body.encode())
    assert client.get("/powertable/t/export").text == body
    import_csv(client, "t", b"d,x\n2024/12/31,1E5\n")
    assert client.get("/powertable/t/rows?d__eq=2024-12-31").json["rows"][0]["x"] == 100000


def test_a_timestamp_comes_back_as_the_same_moment(client: Client) -> None:
    make(client, "t", at="timestamp")
    import_csv(
        client,
        "t",
        b"at\n2024-01-31\n2024-01-31 10:00\n2024-01-31T10:00:00.123456000Z\n"
        b"2024-01-31 10:00:00.5-15:59\n2024-01-31 10:00:00+0530\n",
    )
    assert [row["at"] for row in client.get("/powertable/t/rows").json["rows"]] == [
        "2024-01-31T00:00:00+00:00",
        "2024-01-31T10:00:00+00:00",
        "2024-01-31T10:00:00.123456+00:00",
        "2024-02-01T01:59:00.500000+00:00",
        "2024-01-31T04:30:00+00:00",
    ]


@pytest.mark.parametrize(
    ("sql", "taken", "refused", "expected"),
    [
        ("numeric(10,2)", ["1.50", "-0.05", "0.00"], ["1.505", "7", "1.5"], "such as 1.50"),
        ("numeric(3,3)", ["0.500", "-0.050"], ["0.5", "1.5"], "such as 0.500, and less than 1e0"),
        ("numeric(5,0)", ["7", "-12345"], ["7.5", "7.0"], "no point"),
        ("numeric(5,-2)", ["700", "0", "-1200"], ["750", "7"], "such as 100"),
        ("timestamptz(0)", ["2024-01-31 10:00:00+00"], ["2024-01-31 10:00:00.5"], "finer"),
        ("timestamptz(3)", ["2024-01-31 10:00:00.123+00"], ["2024-01-31 10:00:00.1234"], ".123Z"),
    ],
)
def test_a_column_that_was_narrowed_in_psql_rounds_nothing(
    client: Client,
    psql: Cursor,
    sql: str,
    taken: list[str],
    refused: list[str],
    expected: str,
) -> None:
    alter(client, psql, f"ADD x {sql}")
    import_csv(client, "t", "\n".join(["x", *taken, ""]).encode())
    assert client.get("/powertable/t/export").text.splitlines()[1:] == [
        f",{text}" for text in taken
    ]
    for text in refused:
        detail = refusal(client, f"x\n{taken[0]}\n{text}\n".encode())
        assert detail.startswith(f'Line 3, column "x": found "{text}", expected ')
        assert expected in detail
    row = {"x": refused[0]}
    query = "?numbers=text"
    detail = client.post_json(f"/powertable/t/rows{query}", row, status=422).json["detail"]
    assert expected in detail
    client.patch_json(f"/powertable/t/rows/1{query}", row, status=422)


def test_a_number_with_too_many_digits_for_its_column_is_told_how_many(
    client: Client, psql: Cursor
) -> None:
    alter(client, psql, "ADD x numeric(6,2)")
    detail = refusal(client, b"x\n12345.67\n")
    assert detail.startswith('Line 2, column "x": found "12345.67", expected a number with 2 ')
    assert "at most 4 digits before the point" in detail


def test_a_json_number_is_not_rounded_either(client: Client, psql: Cursor) -> None:
    alter(client, psql, "ADD x numeric(10,2), ADD i bigint")
    client.post("/powertable/t/rows", b'[{"x": 7, "i": 1}, {"x": 1.50}]', status=201)
    for row in (b'{"x": 1.505}', b'{"i": 1.5}', b'[{"x": 1.5}, {"x": 0.001}]'):
        client.post("/powertable/t/rows", row, status=422)
    for text in ("0042", "+1", "1e2", " 1"):
        client.post_json("/powertable/t/rows?numbers=text", {"i": text}, status=422)
    assert client.get("/powertable/t").json["rows"] == 2
    assert client.get("/powertable/t/rows?x__gt=1.505").json["total"] == 1


@pytest.mark.parametrize("sql", ["varchar(3)", "char(3)", "real", "time", "integer", "interval"])
def test_a_column_of_a_type_that_is_not_known_takes_nothing(
    client: Client, psql: Cursor, sql: str
) -> None:
    alter(client, psql, f"ADD x {sql}")
    detail = refusal(client, b"a,x\n1,12345\n")
    assert '"x" is of the type' in detail
    assert "Line 1" in detail


@pytest.mark.parametrize(
    "kind", ["AS (length(a)) STORED", "ALWAYS AS IDENTITY", "BY DEFAULT AS IDENTITY"]
)
def test_a_column_that_postgresql_fills_is_only_read(
    client: Client, psql: Cursor, kind: str
) -> None:
    kind = kind if "IDENTITY" in kind else f"ALWAYS {kind}"
    alter(client, psql, f"ADD g bigint GENERATED {kind}")
    columns = client.get("/powertable/t").json["columns"]
    assert columns[1] == {"name": "g", "type": "integer", "required": False, "generated": True}
    for query in ({}, {"dry_run": "true"}):
        detail = refusal(client, b"a,g\nx,1\n", **query)
        assert detail.startswith('Line 1: found the column "g", expected some of a; "g" is filled')
        detail = refusal(client, b"a,id\nx,1\n", **query)
        assert '"id" is filled by PostgreSQL itself: leave it out' in detail
    for body in ({"a": "x", "g": 1}, {"g": 1}):
        answer = client.post_json("/powertable/t/rows", body, status=422)
        assert "PostgreSQL fills it itself" in answer.json["detail"]
    assert import_csv(client, "t", b"a\nx\n", dry_run="true").json["would_import"] == 1
    import_csv(client, "t", b"a\nx\n")
    import_csv(client, "t", b"y\n", media="text/csv; header=absent")
    client.post_json("/powertable/t/rows", {"a": "z"}, status=201)
    client.patch_json("/powertable/t/rows/1", {"g": 5}, status=422)
    rows = client.get("/powertable/t/rows?g__gt=0").json["rows"]
    assert [row["a"] for row in rows] == ["x", "y", "z"]
    assert client.get("/powertable/t/export").text.startswith("a,g\nx,1\ny,")


def test_a_column_that_is_left_out_has_its_default(client: Client, psql: Cursor) -> None:
    alter(client, psql, "ADD n bigint NOT NULL DEFAULT 5, ADD s bigserial, ADD d bigint DEFAULT 7")
    columns = {each["name"]: each for each in client.get("/powertable/t").json["columns"]}
    assert columns["n"] == {"name": "n", "type": "integer", "required": True, "default": True}
    assert import_csv(client, "t", b"a\nx\n", dry_run="true").json["rows"][0]["d"] == 7
    psql.execute("ALTER SEQUENCE t_s_seq RESTART")
    import_csv(client, "t", b"a\nx\n")
    entries = [{"a": "y"}, {"a": "z", "d": None, "n": 6}, {"s": 9}]
    client.post_json("/powertable/t/rows", entries, status=201)
    exported = client.get("/powertable/t/export").text.splitlines()
    assert exported == ["a,n,s,d", "x,5,1,7", "y,5,2,7", "z,6,3,", ",5,9,7"]
    client.post_json("/powertable/t/rows", {"n": None}, status=422)
    assert 'Line 2, column "n": found nothing' in refusal(client, b'n\n""\n')
    client.patch_json("/powertable/t/rows/1", {"a": "w"})
    assert client.get("/powertable/t/rows?a__eq=w").json["rows"][0]["d"] == 7


def test_a_table_without_a_column_that_takes_values_takes_no_row(
    client: Client, psql: Cursor
) -> None:
    alter(client, psql, "DROP a, ADD g bigint GENERATED ALWAYS AS (1) STORED")
    assert client.get("/powertable/t").json["rows"] == 0
    detail = client.post_json("/powertable/t/rows", {}, status=422).json["detail"]
    assert detail == 'Table "t" has no column that takes values.'


def test_a_column_whose_name_is_none_for_this_plugin_is_called_so(
    client: Client, psql: Cursor
) -> None:
    alter(client, psql, 'ADD "A b" text')
    assert '"A b" is a name that this plugin does not know' in refusal(client, b"A b\nx\n")


def test_what_a_trigger_refuses_is_refused_with_its_line_and_its_words(
    client: Client, psql: Cursor
) -> None:
    make(client, "t", a="text")
    psql.execute(
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.a = 'bad' THEN RAISE EXCEPTION 'nothing bad here.'; END IF;"
        " IF NEW.a = 'odd' THEN ASSERT false, 'nothing odd'; END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER look BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION look()"
    )
    assert refusal(client, b'a\n"x\ny"\nbad\n') == "Line 4: nothing bad here."
    assert refusal(client, b"a\nodd\n") == "Line 2: nothing odd."
    answer = client.post_json("/powertable/t/rows", [{"a": "x"}, {"a": "bad"}], status=422)
    assert answer.json["detail"] == "PostgreSQL: nothing bad here."
    client.post_json("/powertable/t/rows", {"a": "x"}, status=201)
    client.patch_json("/powertable/t/rows/2", {"a": "bad"}, status="4*")
    assert client.get("/powertable/t").json["rows"] == 1


def test_the_first_line_that_does_not_fit_is_named(client: Client) -> None:
    make(client, "t", x="date", y="integer")
    assert refusal(client, b"x,y\n2024-02-30,1\n2024-01-01,0042\n").startswith("Line 2")
    assert refusal(client, b"x,y\n2024-01-01,0042\n2024-02-30,1\n").startswith("Line 2")
    assert "extra data" in refusal(client, b"x,y\n2024-01-01,1,2\n2024-01-01,0042\n")
    far = b"2024-01-01,1\n" * 50_000
    assert refusal(client, b"x,y\n" + far + b"2024-01-01,0042\n" + far).startswith("Line 50002")


def test_a_field_is_found_wherever_a_piece_of_the_file_ends(client: Client) -> None:
    make(client, "t", x="text", y="integer", z="timestamp")
    for end in (b"\n", b"\r\n", b"\r"):
        for size in range(64 * 1024 - 45, 64 * 1024 - 5, 3):
            first = b'"' + b"a" * (size - 2) + b'"'
            head = b"x,y,z" + end + first + b',"12",2024-01-31 10:00:00Z' + end + b'"""",1,' + end
            assert import_csv(client, "t", head).json["imported"] == 2
            detail = refusal(client, head + b",012," + end)
            assert detail.startswith('Line 4, column "y": found "012"'), detail


def test_a_huge_text_beside_a_typed_column_is_taken(client: Client) -> None:
    make(client, "t", x="text", y="integer")
    for text in (b"a" * 12_000_000, b'"' + b'a""\n' * 3_000_000 + b'"'):
        assert import_csv(client, "t", b"x,y\n" + text + b",1\n").json["imported"] == 1
        lines = text.count(b"\n")
        assert f'Line {lines + 2}, column "y"' in refusal(client, b"x,y\n" + text + b",01\n")
    assert 'Line 2, column "y"' in refusal(client, b"y\n" + b"1" * 300_000 + b"\n")


@pytest.mark.parametrize(
    ("delimiter", "body"),
    [
        ("-", b'd-i\n"2024-01-31"-1\n'),
        (" ", b'd i\n2024-01-31 1\n'),
        (":", b"d:i\n2024-01-31:1\n"),
        ("/", b'd/i\n2024-01-31/"1"\n'),
        (".", b"d.i\n2024-01-31.1\n"),
        ("+", b"d+i\n2024-01-31+1\n"),
    ],
)  # fmt: skip
def test_a_delimiter_that_values_have_divides_as_copy_divides(
    client: Client, delimiter: str, body: bytes
) -> None:
    make(client, "t", d="timestamp", i="integer")
    import_csv(client, "t", body, delimiter=delimiter)
    row = client.get("/powertable/t/rows/1").json
    assert (row["d"], row["i"]) == ("2024-01-31T00:00:00+00:00", 1)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mapping",
    [
        {"id": "id_2", "ID": "id_3", "Id": "id_4"},
        {"name": "name", "NAME": "name_2", "Name": "name_3"},
        {"First Name": "first_name", "first name": "first_name_2", "first-name": "first_name_3"},
        {"a": "a", "A": "a_3", "a_2": "a_2", "A_2": "a_2_2"},
        {"A": "a", "a!": "a_3", "a_2!": "a_2"},
        {"xmin": "xmin_3", "Xmin": "xmin_4", "xmin_2": "xmin_2"},
    ],
)
def test_a_renamed_column_has_its_name_in_whatever_order(
    client: Client, mapping: dict[str, str]
) -> None:
    query = {"create": "true", "rename": "true", "dry_run": "true"}
    for header in itertools.permutations(mapping):
        answer = import_csv(client, "t", f"{','.join(header)}\n".encode(), **query).json
        assert {each["header"]: each["column"] for each in answer["mapping"]} == mapping


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('"{long}"', 2),
        ('1|"{lines}"', 2),
        ('"x|y"|"{lines}"', 3),
        ('"{exact}"|"x|{lines}"', 2),
        ('"x"|"y"|"a|""{lines}"', 4),
    ],
)
def test_a_huge_field_is_refused_with_the_line_in_which_it_begins(
    client: Client, end: str, rows: str, line: int
) -> None:
    fields = {"long": "x" * 140_000, "lines": "x\n" * 70_000, "exact": "ö" * 131_072}
    width = 1 if "long" in rows else 2
    rows = (
        rows.replace('"x"|"y"|', "z,z|z,z|1,").replace('"x|y"|"', '"x|y","').replace('1|"', '1,"')
    )
    rows = rows.replace('"{exact}"|', '"{exact}",').replace("|", end).format(**fields)
    rows = rows.replace("x\n", f"x{end}")
    body = ",".join("ab"[:width]) + end + rows + end
    detail = refusal(client, body.encode(), create="true")
    assert detail.startswith(f"Line {line}: found a field of more than 131,072 characters"), detail


def test_what_postgresql_refuses_has_the_line_in_which_its_field_begins(client: Client) -> None:
    make(client, "t", x="text", d="date", y="text")
    for end in ("\n", "\r\n", "\r"):
        many = f"a{end}" * 3
        bad = f'x,d,y{end}1,,"{many}"{end}"{many}",2024-02-30,"{many}"{end}'
        assert refusal(client, bad.encode()).startswith('Line 9, column "d": found "2024-02-30"')
        short = f'x,d,y{end}1,,"{many}"{end}"{many}",2024-01-30{end}'
        assert refusal(client, short.encode()).startswith("Line 6: missing data")


# --- hints ---------------------------------------------------------------------------------------


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (gzip.compress(b"a,b\n1,2\n"), "a gzip file"),
        (bz2.compress(b"a,b\n1,2\n"), "a bzip2 file"),
        (lzma.compress(b"a,b\n1,2\n"), "an xz file"),
        (zipped("a.csv"), "a zip archive"),
        (zipped("xl/workbook.xml"), "an Excel workbook (xlsx)"),
        (zipped("[Content_Types].xml"), "an Office document"),
        (b"PK\x03\x04mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "OpenDocument"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "an old Excel workbook (xls)"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"SQLite format 3\0", "an SQLite database"),
    ],
    # Archives hold the time: named by their bytes, the tests would be others in each process.
    ids=lambda value: value if isinstance(value, str) else "body",
)
def test_a_body_of_another_kind_is_called_by_its_name(
    client: Client, body: bytes, kind: str
) -> None:
    for media in ("text/csv", "text/csv; charset=latin1", "text/csv; header=absent"):
        answer = import_csv(client, "t", body, create="true", media=media, status=415).json
        assert kind in answer["detail"]
    client.get("/powertable/t", status=404)


@pytest.mark.parametrize(
    ("body", "query", "wanted", "unwanted"),
    [
        (b"sep=;\na;b\n1;2\n", {}, "delete this line and say delimiter=semicolon", "rename"),
        (b"sep=,\na,b\n1,2\n", {}, "delete this line and say delimiter=comma", "rename"),
        (b"sep=\t\r\na\tb\r\n", {"rename": "true"}, "say delimiter=tab", "rename"),
        (b"SEP=|\ra|b\r", {"delimiter": "pipe"}, "say delimiter=pipe", "rename"),
        (b"a,b,c\n1,2,3\n", {"delimiter": ";"}, "is it delimiter=comma?", "rename"),
        (b"a;b\n1;2\n", {"delimiter": "tab"}, "is it delimiter=semicolon?", "rename"),
        (b'"a","b"\n"1","2"\n', {"delimiter": ";"}, "say delimiter=comma", "quote=none"),
        (b'a|"b"\n', {"delimiter": ";"}, "say delimiter=pipe", "quote=none"),
        (b'[{"a": 1}]', {}, "/rows", "quote=none"),
        (b'{"a": 1}', {}, "/rows", "quote=none"),
        (b'"a;b"\n1\n', {}, "rename=true", "delimiter="),
        (",".join(f"c{n}" for n in range(401)).encode(), {}, "divide the file", "rename"),
        (",".join(f"c{n}" for n in range(101)).encode(), {}, "max_columns", "rename"),
        (b"a,b\n1,2\r3,4\n", {}, "the lines to end alike", "PUT"),
        (b"a,b\r1,2\r3,4\n", {}, "line ends that are alike", "PUT"),
    ],
)
def test_a_hint_fits_what_was_sent(
    client: Client, body: bytes, query: dict[str, str], wanted: str, unwanted: str
) -> None:
    detail = refusal(client, body, create="true", **query)
    assert detail.startswith("Line ")
    assert wanted in detail
    assert unwanted not in detail


def test_a_hint_for_a_table_that_is_there_fits_too(client: Client, psql: Cursor) -> None:
    alter(client, psql, "ADD b bigint CONSTRAINT positive CHECK (b > 0), ADD UNIQUE (a)")
    assert "is it delimiter=comma?" in refusal(client, b"a,b\n1,2\n", delimiter=";")
    for body, wanted in (
        (b"a,b\nx,1\nx,2\n", "Line 3: duplicate key"),
        (b"a,b\nx,1\ny,-1\n", "Line 3: new row"),
        (b"a,b\nx,1,2\n", "found 3 fields, expected 2"),
        (b"a,b\nx\n", "found 1 field, expected 2"),
        (b"a,b\nx,1\ry,2\n", "line ends that are alike"),
    ):
        detail = refusal(client, body)
        assert wanted in detail
        assert ("alike" in detail) is ("alike" in wanted), detail


# --- query, path and JSON ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("a__eq=%FF", "a__eq=%FF"),
        ("a__eq=x&a__in=x,%C3", "a__in=x,%C3"),
        ("a__ne=%ED%A0%80", "%ED%A0%80"),
        ("a__contains=%C0%80", "%C0%80"),
        ("%FF__eq=1", "%FF__eq=1"),
        ("sort=%ff", "sort=%ff"),
        ("page=1%80", "page=1%80"),
    ],
)
def test_a_query_that_is_no_utf8_is_refused(client: Client, query: str, shown: str) -> None:
    make(client, "t", a="text")
    client.post_json("/powertable/t/rows", {"a": "\ufffd"}, status=201)
    for path in ("", "/t", "/t/rows", "/t/rows/1", "/t/aggregate", "/t/export", "/t/import"):
        detail = client.get(f"/powertable{path}?{query}", status=400).json["detail"]
        assert shown in detail
        assert "no UTF-8" in detail
    import_csv_path = f"/powertable/t/import?{query}"
    assert "no UTF-8" in client.post(import_csv_path, b"a\n1\n", status=400).json["detail"]
    found = client.get("/powertable/t/rows?a__eq=%EF%BF%BD").json
    assert found["total"] == 1


def raw_get(client: Client, path: bytes, query: bytes) -> webtest.TestResponse:
    environ = {"PATH_INFO": path.decode("latin-1"), "QUERY_STRING": query.decode("latin-1")}
    request = webtest.TestRequest.blank("/")
    request.environ.update(environ)
    return client.do_request(request, expect_errors=True)


def test_bytes_that_are_not_percent_encoded_are_refused(client: Client) -> None:
    make(client, "t", a="text")
    client.post_json("/powertable/t/rows", {"a": "Größe"}, status=201)
    answer = raw_get(client, b"/powertable/t/rows", "a__eq=Größe".encode())
    assert answer.status_int == 400
    assert '"a__eq=Größe"' in answer.json["detail"]
    assert "percent-encoded" in answer.json["detail"]
    assert raw_get(client, b"/powertable/t/rows", b"a__eq=\xff").status_int == 400
    assert client.get("/powertable/t/rows", {"a__eq": "Größe"}).json["total"] == 1


def test_a_path_that_is_no_utf8_is_refused(client: Client) -> None:
    for path in (
        b"/powertable/\xff",
        b"/powertable/t\xc3/rows",
        b"/powertable/\xed\xa0\x80/export",
    ):
        answer = raw_get(client, path, b"")
        assert answer.status_int == 400
        assert "no UTF-8" in answer.json["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/powertable/t/rows", b'{"a": "x", "b": "y", "a": "z"}'),
        ("POST", "/powertable/t/rows", b'[{"b": "x"}, {"a": "x", "a": "x"}]'),
        ("POST", "/powertable/t/rows", b'{"\\u0061": "x", "a": "y"}'),
        ("PATCH", "/powertable/t/rows/1", b'{"a": "x", "a": null}'),
        ("PUT", "/powertable/u", b'{"columns": [{"name": "a", "a": 1, "a": 2, "type": "text"}]}'),
    ],
)
def test_a_key_that_comes_twice_is_refused_by_name(
    client: Client, method: str, path: str, body: bytes
) -> None:
    make(client, "t", a="text", b="text")
    client.post_json("/powertable/t/rows", {"a": "kept"}, status=201)
    answer = client.request(path, method=method, body=body, status=422)
    assert 'Found "a" twice' in answer.json["detail"]
    rows = client.get("/powertable/t/rows").json["rows"]
    assert rows == [{"id": 1, "a": "kept", "b": None}]
    client.get("/powertable/u", status=404)


def test_the_definition_of_a_table_has_its_keys_once(client: Client) -> None:
    columns = b'[{"name": "a", "type": "text"}]'
    body = b'{"columns": %b, "columns": %b}' % (columns, columns)
    answer = client.request("/powertable/t", method="PUT", body=body, status=422)
    assert 'Found "columns" twice' in answer.json["detail"]
    for body, status in ((b"", 400), (b"[", 400), (b"5", 422), (b"[]", 422), (b"{}", 422)):
        client.request("/powertable/t", method="PUT", body=body, status=status)


@pytest.mark.parametrize(
    ("header", "possible"),
    [
        ("First Name", "first_name_2 or first_name_3 or first_name"),
        ("first name,First  Name", "first_name_2 or first_name_3 or first_name"),
        ("ID", "id_3 or id_2"),
    ],
)
def test_a_header_that_may_be_one_of_several_renamed_columns_is_refused(
    client: Client, header: str, possible: str
) -> None:
    whole = "First Name,first name,First  Name,ID,id"
    row = ",".join("1" for _ in whole.split(","))
    made = f"{whole}\n{row}\n".encode()
    import_csv(client, "t", made, create="true", rename="true", status=201)
    some = f"{header}\n{','.join('2' for _ in header.split(','))}\n".encode()
    for query in ({}, {"dry_run": "true"}):
        detail = refusal(client, some, rename="true", **query)
        assert f'Line 1: "{header.split(",")[0]}" may be {possible}: write' in detail
    turned = ",".join(reversed(whole.split(",")))
    import_csv(client, "t", f"{turned}\n5,4,3,2,1\n".encode(), rename="true")
    import_csv(client, "t", b"first_name_3\n7\n", rename="true")
    assert client.get("/powertable/t/export").text.splitlines()[1:] == [
        "1,1,1,1,1",
        "1,2,3,4,5",
        ",7,,,",
    ]


def test_a_dry_run_names_the_table_that_it_stands_for(client: Client, psql: Cursor) -> None:
    alter(client, psql, "ADD b bigint CONSTRAINT positive CHECK (b > 0)")
    found = [refusal(client, b"a,b\nx,-1\n", **query) for query in ({}, {"dry_run": "true"})]
    assert all('Line 2: new row for relation "t" violates check constraint' in f for f in found)


def test_a_value_that_json_or_a_page_cannot_have_is_called_by_its_fault(client: Client) -> None:
    make(client, "t", a="text", i="integer", d="double")
    path = "/powertable/t/rows"
    half = client.post(path, b'{"a": "\\ud800"}', status=422).json["detail"]
    assert "halves of surrogate pairs" in half
    written = client.post_json(f"{path}?numbers=text", {"i": "1e5"}, status=422).json["detail"]
    assert "without a plus, an exponent" in written
    for name in ("page", "page_size"):
        twice = client.get(f"{path}?{name}=1&{name}=2", status=400).json["detail"]
        assert twice == f"{name}: found 2 values, expected one."
    assert refusal(client, b"a,d\nx,NaN\n") == (
        'Line 2, column "d": found a value in the line "x,NaN" that is not a finite number.'
    )


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(database_url: str) -> None:
    body = SlowBody(b"", b"")
    with powertable(database_url, max_import_bytes=10) as client:
        request = webtest.TestRequest.blank("/powertable/t/import?create=true", method="POST")
        request.environ.update({"wsgi.input": body, "CONTENT_LENGTH": "11"})
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: b"".join(client.app(request.environ, lambda *_: None)))
            try:
                assert b"more than 10 bytes" in running.result(10)
            finally:
                body.goes_on.set()


# --- progress ------------------------------------------------------------------------------------


class SlowBody(io.RawIOBase):
    """A body that stops in its middle until it is let go on."""

    def __init__(self, first: bytes, last: bytes) -> None:
        self._first = io.BytesIO(first)
        self._last = io.BytesIO(last)
        self.goes_on = Event()

    def read(self, size: int = -1) -> bytes:
        if found := self._first.read(size):
            return found
        self.goes_on.wait(30)
        return self._last.read(size)


def test_the_bytes_that_are_received_are_seen_meanwhile(client: Client) -> None:
    body = SlowBody(b"a\n" + b"x\n" * 100_000, b"y\n" * 10)
    request = webtest.TestRequest.blank("/powertable/t/import?create=true", method="POST")
    request.environ.update({"wsgi.input": body, "CONTENT_LENGTH": "200022"})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: b"".join(client.app(request.environ, lambda *_: None)))

        def newest() -> dict[str, Any]:
            answer = client.get("/powertable/t/import", expect_errors=True).json
            return dict(answer["imports"][0]) if answer.get("imports") else {"bytes": None}

        try:
            wait_until(lambda: (newest()["bytes"] or 0) >= 128 * 1024, "bytes are received")
            assert newest()["state"] == "receiving"
            assert newest()["bytes"] <= 200_002
        finally:
            body.goes_on.set()
        assert b'"imported":100010' in running.result(30)
    assert (newest()["state"], newest()["bytes"]) == ("done", 200_022)


def test_an_import_that_no_longer_says_that_it_goes_on_is_called_silent(
    client: Client, psql: Cursor
) -> None:
    body = SlowBody(b"a\n" + b"x\n" * 100_000, b"y\n" * 10)
    request = webtest.TestRequest.blank("/powertable/t/import?create=true", method="POST")
    request.environ.update({"wsgi.input": body, "CONTENT_LENGTH": "200022"})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: b"".join(client.app(request.environ, lambda *_: None)))

        def state() -> str:
            answer = client.get("/powertable/t/import", expect_errors=True).json
            return str(answer["imports"][0]["state"]) if answer.get("imports") else ""

        try:
            wait_until(lambda: state() == "receiving", "the import receives")
            for seconds, expected in ((50, "receiving"), (70, "silent")):
                psql.execute(
                    "UPDATE _imports SET changed = clock_timestamp() - make_interval(secs => %s)"
                    " WHERE id = (SELECT max(id) FROM _imports)",
                    (seconds,),
                )
                assert state() == expected
        finally:
            body.goes_on.set()
        assert b'"imported":100010' in running.result(30)
    assert state() == "done"
    psql.execute("UPDATE _imports SET changed = clock_timestamp() - interval '70 s'")
    assert state() == "done"


@pytest.mark.soak
def test_a_long_check_says_each_second_that_it_goes_on(client: Client) -> None:
    body = b"a,b,c\n" + b"2024-01-01,12345.67,text\n" * 4_000_000
    seen: set[str] = set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(import_csv, client, "t", body, 201, create="true")
        while not running.done():
            answer = client.get("/powertable/t/import", expect_errors=True).json
            seen |= {
                each["changed"] for each in answer.get("imports", []) if each["state"] == "checking"
            }
        running.result()
    assert len(seen) > 2
