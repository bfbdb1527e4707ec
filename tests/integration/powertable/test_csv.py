"""CSV in `powertable`: a table gives back what it was given, and says so when it cannot."""

import csv
import io
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor

from tests.support.powertable import FOLDER, Client, import_csv, make
from tests.support.waiting import wait_until

CASES = Path(__file__).parents[2] / "support" / "csv"


def case(name: str) -> bytes:
    return (CASES / f"{name}.csv").read_bytes()


def create(client: Client, body: bytes, status: int = 201, **query: Any) -> Any:
    """Make the table `t` of a CSV and return the answer."""
    return import_csv(client, "t", body, create="true", status=status, **query).json


def refusal(client: Client, body: bytes, status: int = 422, **query: Any) -> str:
    """Return why the table `t` cannot be made of a CSV; nothing is left of it."""
    answer = create(client, body, status, **query)
    client.get("/powertable/t", status=404)
    return str(answer["detail"])


def types(answer: Any) -> dict[str, str]:
    return {column["name"]: column["type"] for column in answer["columns"]}


def export(client: Client) -> str:
    return str(client.get("/powertable/t/export").body.decode())


def rows(client: Client, **query: str) -> list[dict[str, Any]]:
    found = client.get("/powertable/t/rows", query).json["rows"]
    return [{name: value for name, value in row.items() if name != "id"} for row in found]


# --- one dialect ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (case("stray_quotes"), "Line 2: found a quote inside of a field"),
        (case("open_quote"), "Line 22: the quote is never closed"),
        (case("quotes_in_braces"), "Line 2: found a quote inside of a field"),
        (b'a,b\n"x" ,1\n', "Line 2: found text after the quote that closes a field"),
        (b'a,b\n1, "x"\n', "Line 2: found a quote inside of a field"),
        (b'a,b\n"x,1\ny,2\n"z",3\n', "Line 4: found text after the quote that closes a field"),
        (b'a,b\n"x,1\ny,2\n"z",3\n', "which was opened in line 2"),
        (b'a,b\r\n"x\r\ny",1\r\nz"z,1\r\n', "Line 4"),
        (b'a\rb\rc"c\r', "Line 3"),
        (b'a\n"' + b"x" * 300_000 + b'"y\n', "Line 2: found text after"),
        (b'a\n' + b'"x\n\n"\n' * 100_000 + b'y"\n', "Line 300002: found a quote"),
        (b'a\n' + b'1\n' * 200_000 + b'"', "Line 200002: the quote is never closed"),
    ],
)  # fmt: skip
def test_a_quote_in_a_wrong_place_is_refused_with_its_line(
    client: Client, body: bytes, message: str
) -> None:
    for query in ({"create": "true"}, {}):
        if not query:
            make(client, "t", a="text", b="text", item="text", note="text", doc="text")
        detail = import_csv(client, "t", body, status=422, **query).json["detail"]
        assert message in detail
        assert "quote=none" in detail
    assert rows(client) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stray_quotes", [['6" pipe', "ok"], ["7 pipe", "ok"], ['4" pipe', "ok"]]),
        ("quotes_in_braces", [['{"a":1}']]),
    ],
)
def test_quote_none_takes_quotes_as_they_are(
    client: Client, name: str, expected: list[list[str]]
) -> None:
    create(client, case(name), quote="none")
    assert [list(row.values()) for row in rows(client)] == expected
    again = export(client)
    client.delete("/powertable/t")
    create(client, again.encode())
    assert [list(row.values()) for row in rows(client)] == expected


@pytest.mark.parametrize(
    ("body", "query", "expected"),
    [
        (b"a,b\n'x,y','it''s \"so\"'\n", {"quote": "'"}, {"a": "x,y", "b": 'it\'s "so"'}),
        (b'a,b\n"",\n', {}, {"a": "", "b": None}),
        (b'a,b\n"x\r\ny\rz","""\n"""', {}, {"a": "x\r\ny\rz", "b": '"\n"'}),
        (b'a,b\r\n"x\ny",z\r\n', {}, {"a": "x\ny", "b": "z"}),
        (b'"a"\r"x\ny"\r', {}, {"a": "x\ny"}),
        (bytes((97, 9, 98, 10, *range(1, 9), 9, *range(14, 32), 127)), {"quote": "none"}, None),
    ],
)
def test_a_field_is_read_as_its_dialect_says(
    client: Client, body: bytes, query: dict[str, Any], expected: dict[str, str] | None
) -> None:
    if expected is None:
        assert "every control character" in refusal(client, body, **query)
        return
    create(client, body, **query)
    assert rows(client) == [expected]


# The files of csv-spectrum 2.0.0 (https://github.com/max-mapper/csv-spectrum, BSD-2-Clause).
SPECTRUM = {
    "comma_in_quotes": b'first,last,address,city,zip\nJohn,Doe,120 any st.,"Anytown, WW",08123',
    "empty": b'a,b,c\n1,"",""\n2,3,4',
    "empty_crlf": b'a,b,c\r\n1,"",""\r\n2,3,4',
    "escaped_quotes": b'a,b\n1,"ha ""ha"" ha"\n3,4\n',
    "json": b'key,val\n1,"{""type"": ""Point"", ""coordinates"": [102.0, 0.5]}"\n',
    "newlines": b'a,b,c\n1,2,3\n"Once upon \na time",5,6\n7,8,9\n',
    "newlines_crlf": b'a,b,c\r\n1,2,3\r\n"Once upon \r\na time",5,6\r\n7,8,9\r\n',
    "quotes_and_newlines": b'a,b\n1,"ha \n""ha"" \nha"\n3,4\n',
    "simple": b"a,b,c\n1,2,3\n",
    "simple_crlf": b"a,b,c\r\n1,2,3\r\n",
    "utf8": "a,b,c\n1,2,3\n4,5,ʤ".encode(),
}
COORDINATES = (
    "Contact Phone Number,Location Coordinates,Cities,Counties\n"
    "2095257564,37\ufffd36'37.8\"N 121\ufffd2'17.9\"W,Modesto,Stanislaus"
).encode()


@pytest.mark.parametrize("name", SPECTRUM)
def test_the_files_of_csv_spectrum_come_back(client: Client, name: str) -> None:
    create(client, SPECTRUM[name])
    found, given = (
        list(csv.reader(io.StringIO(text, newline=""), strict=True))
        for text in (export(client), SPECTRUM[name].decode())
    )
    assert found == given


def test_the_one_with_quotes_in_a_field_needs_to_be_told_so(client: Client) -> None:
    assert "Line 2: found a quote inside" in refusal(client, COORDINATES, rename="true")
    create(client, COORDINATES, rename="true", quote="none")
    assert rows(client)[0]["location_coordinates"] == "37\ufffd36'37.8\"N 121\ufffd2'17.9\"W"


def test_a_quote_at_the_border_of_a_piece_is_read_as_any_other(client: Client) -> None:
    make(client, "t", a="text", b="text")
    for size in range(256 * 1024 - 10, 256 * 1024 + 1):
        head = b"a,b\n" + b"x" * (size - 4)
        assert import_csv(client, "t", head + b',"""y"""\n').json["imported"] == 1
        assert rows(client, sort="-id", page_size="1")[0]["b"] == '"y"'
        for wrong, line in ((b',"y"z\n', 2), (b',y"\n', 2), (b',\nx,"y', 3), (b",\n\\.\n", 3)):
            answer = import_csv(client, "t", head + wrong, status=422)
            assert f"Line {line}: " in answer.json["detail"]


def test_the_line_is_the_one_that_an_editor_shows(client: Client) -> None:
    make(client, "t", a="integer", b="text")
    for body, line in (
        (b'a,b\r\n1,"x\ny\nz"\r\ntwo,\r\n', 5),
        (b'a,b\n1,"x\ny\nz"\ntwo,\n', 5),
        (b'a,b\r1,"x\ry"\rtwo,\r', 4),
        (b'a,b\r\n1,"' + b"x\n" * 200_000 + b'"\r\ntwo,\r\n', 200_003),
    ):
        detail = import_csv(client, "t", body, status=422).json["detail"]
        assert f"Line {line}, " in detail, detail
    detail = import_csv(client, "t", b"a,b\n1,x\r\n", status=422).json["detail"]
    assert "Line 2: " in detail
    assert "line ends that are alike" in detail


# --- values --------------------------------------------------------------------------------------


def test_codes_come_back_as_they_were_written(client: Client) -> None:
    answer = create(client, case("codes"))
    assert types(answer) == {"code": "text", "version": "number", "price": "number"}
    assert export(client).encode() == case("codes")
    raw = client.get("/powertable/t/rows").text
    assert '"version":1.100,"price":7' in raw
    total = client.get("/powertable/t/aggregate?metrics=sum:price").text
    assert '"sum:price":104.00' in total


def test_what_is_inferred_as_a_time_is_one_for_postgresql(client: Client) -> None:
    assert types(create(client, case("zone"))) == {"at": "text"}
    assert export(client).encode() == case("zone")


def test_json_carries_all_digits(client: Client) -> None:
    make(client, "t", whole="integer", exact="number", double="double")
    digits = "12345678901234567890.10"
    row = f'{{"whole":9007199254740993,"exact":{digits},"double":0.1}}'
    client.post("/powertable/t/rows", row, status=201)
    assert f'"rows":[{{"id":1,{row[1:]}]' in client.get("/powertable/t/rows").text
    assert client.get("/powertable/t/rows/1?numbers=text").json == {
        "id": "1",
        "whole": "9007199254740993",
        "exact": digits,
        "double": 0.1,
    }
    query = f"exact__eq={digits}&metrics=sum:whole,max:exact,count&group_by=exact&numbers=text"
    group = client.get(f"/powertable/t/aggregate?{query}").json["rows"]
    assert group == [
        {
            "group": {"exact": digits},
            "metrics": {"sum:whole": "9007199254740993", "max:exact": digits, "count": "1"},
        }
    ]
    changed = client.patch("/powertable/t/rows/1", '{"exact":1e2}').text
    assert '"exact":100,' in changed.replace("1E+2", "100")
    text = {"whole": "9007199254740995", "exact": "0.10"}
    client.patch_json("/powertable/t/rows/1", text, status=422)
    kept = client.patch_json("/powertable/t/rows/1?numbers=text", text).json
    assert {name: kept[name] for name in text} == text
    for value in ("1e1000", "1e-1001", "1e999999999"):
        client.post("/powertable/t/rows", f'{{"exact":{value}}}', status=422)
        client.get(f"/powertable/t/rows?exact__eq={value}", status=400)
    for body in (
        b"",
        b"{",
        b'{"exact":NaN}',
        b'{"exact":1e9999999999999999999}',
        b"[" * 100_000,
        b"\xff",
    ):
        client.post("/powertable/t/rows", body, status=400)
    for kind in (b"5", b'"x"', b"null"):
        client.post("/powertable/t/rows", kind, status=422)
        client.patch("/powertable/t/rows/1", kind, status=422)


def test_a_text_cannot_look_like_a_number_in_json(client: Client) -> None:
    make(client, "t", a="text", n="number")
    client.post_json("/powertable/t/rows", {"a": "1.10", "n": 1.5}, status=201)
    assert client.get("/powertable/t/rows").json["rows"] == [{"id": 1, "a": "1.10", "n": 1.5}]


def test_a_double_column_of_before_stays_as_it_is(client: Client, psql: Cursor) -> None:
    make(client, "t", a="text")
    psql.execute(
        "ALTER TABLE t DROP a, ADD x double precision"
        " CONSTRAINT x CHECK (x > '-Infinity' AND x < 'Infinity')"
    )
    import_csv(client, "t", b"x\n1e5\n0.5\n")
    assert types(client.get("/powertable/t").json) == {"x": "double"}
    assert rows(client) == [{"x": 100000.0}, {"x": 0.5}]
    assert export(client) == "x\n100000\n0.5\n"


# --- names ---------------------------------------------------------------------------------------


def test_system_names_are_refused_all_at_once(client: Client) -> None:
    detail = refusal(client, case("system_names"))
    assert 'PostgreSQL keeps for itself the column names "xmin", "ctid", "tableoid"' in detail
    columns = [{"name": name, "type": "text"} for name in ("cmin", "Bad", "id", "cmax", "x", "x")]
    detail = client.put_json("/powertable/t", {"columns": columns}, status=422).json["detail"]
    for name in ("cmin", "Bad", "id", "cmax", "x"):
        assert f'"{name}"' in detail
    make(client, "t", a="text!", b="text")
    detail = import_csv(client, "t", b"b,X,Y,b\n", status=422).json["detail"]
    assert 'columns "X", "Y"' in detail
    assert '"b" twice' in detail
    assert "found no a" in detail


def test_bad_names_are_refused_all_at_once_or_renamed(client: Client) -> None:
    detail = refusal(client, case("headers"))
    for name in ("ID", "First Name", "Größe", "", "first name"):
        assert json.dumps(name, ensure_ascii=False) in detail
    assert "rename=true" in detail
    answer = create(client, case("headers"), rename="true")
    assert answer["mapping"] == [
        {"header": "ID", "column": "id_2"},
        {"header": "First Name", "column": "first_name"},
        {"header": "Größe", "column": "grosse"},
        {"header": "", "column": "column_4"},
        {"header": "first name", "column": "first_name_2"},
    ]
    # The same file finds its columns again.
    assert import_csv(client, "t", case("headers"), rename="true").json["imported"] == 1


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("a,a,a_2", ["a", "a_3", "a_2"]),
        ("xmin,ctid", ["xmin_2", "ctid_2"]),
        ("2024,日本,_", ["column_2024", "column_2", "column_3"]),
        (f"{'x' * 70},{'x' * 71}", ["x" * 63, "x" * 61 + "_2"]),
        ('"; DROP TABLE t; --","""",%s{0}', ["drop_table_t", "column_2", "s_0"]),
        ('"a\nb",\u212b', ["a_b", "a"]),
    ],
)
def test_a_renamed_column_has_a_name_that_can_be_used(
    client: Client, header: str, names: list[str]
) -> None:
    body = f"{header}\n{','.join('1' * len(names))}\n".encode()
    answer = create(client, body, rename="true")
    assert [column["name"] for column in answer["columns"]] == names
    assert rows(client) == [dict.fromkeys(names, 1)]


# --- files as they come --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "query", "delimiter", "fields"),
    [
        (case("semicolons")[:18], {}, ";", ["A", "1,5"]),
        (b"a\tb\n1,5\t2\n", {}, "\t", ["1,5", 2]),
        (b"a|b\n1;5|2\n", {}, "|", ["1;5", 2]),
        (b"a,b\n1,2;3\n", {}, ",", [1, "2;3"]),
        (b'a;b\n"1;2\n3";4\n', {}, ";", ["1;2\n3", 4]),
        (b'"a;b",c\nx,y\n', {"rename": "true"}, ",", ["x", "y"]),
        (b'"a;b"\nx;y\n', {"rename": "true"}, ",", ["x;y"]),
        (b"a^b\n1^2\n", {"delimiter": "^"}, "^", [1, 2]),
        (b"a]b\n\"]\"]2\n", {"delimiter": "]"}, "]", ["]", 2]),
        (b"a-b\n\"-\"-2\n", {"delimiter": "-"}, "-", ["-", 2]),
        (b"a b\n1 2\n", {"delimiter": " "}, " ", [1, 2]),
        (b"a\tb\n1\t2\n", {"delimiter": "tab"}, "\t", [1, 2]),
        (b"a\x01b\n1\x012\n", {"delimiter": "\x01", "quote": "none"}, "\x01", [1, 2]),
        (b"a\n1;2\n", {}, ",", ["1;2"]),
        (b"a;b\n1;2\n\n\n", {}, ";", [1, 2]),
    ],
)  # fmt: skip
def test_the_delimiter_is_said_or_found_and_in_the_answer(
    client: Client, body: bytes, query: dict[str, Any], delimiter: str, fields: list[Any]
) -> None:
    assert create(client, body, **query)["delimiter"] == delimiter
    assert [list(row.values()) for row in rows(client)] == [fields]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"a;b\n1;2\n3\n", 'Line 3: found 1 field with the delimiter ";", expected 2'),
        (b"a;b\n1;2\n3;4;5\n", 'Line 3: found 3 fields with the delimiter ";", expected 2'),
        (b"a;b\n1;2\n\n3;4\n", "Line 3: found 0 fields"),
        (b"a;b|c;d\n1;2|3;4\n", "say delimiter="),
        (b'a;b\n1;2\n3";4\n', "Line 3: found a quote"),
        (b"a;b|c\n1;2|3\n", "say delimiter="),
    ],
)
@pytest.mark.parametrize("rename", ["true", "false"])
def test_a_delimiter_that_does_not_fit_is_refused(
    client: Client, body: bytes, message: str, rename: str
) -> None:
    detail = refusal(client, body, rename=rename)
    assert message in detail
    assert "delimiter=" in detail


@pytest.mark.parametrize(
    "query",
    [
        *("delimiter=", "delimiter=ab", "delimiter=a", "delimiter=%0A", "delimiter=%00"),
        *("delimiter=%22", "delimiter=%5C", "delimiter=%C3%B6", "delimiter=,&delimiter=;"),
        *("quote=x", "quote=", "create=maybe", "dry_run=2", "rename=", "numbers=float"),
        *("delimeter=;", "create=true&create=false", "charset=latin1", "a__eq=1"),
        "delimiter=%27)%3B%20DROP%20TABLE%20t%3B--",
    ],
)
def test_a_bad_parameter_of_an_import_is_refused(client: Client, query: str) -> None:
    make(client, "t", a="text")
    client.post(f"/powertable/t/import?{query}", b"a\n1\n", status=400)
    assert rows(client) == []


def test_unknown_parameters_are_refused_on_every_call(client: Client) -> None:
    make(client, "t", a="text")
    body = {"columns": [{"name": "a", "type": "text"}]}
    calls: list[Callable[[], Any]] = [
        lambda: client.get("/powertable?x=1", status=400),
        lambda: client.put_json("/powertable/u?x=1", body, status=400),
        lambda: client.get("/powertable/t?x=1", status=400),
        lambda: client.delete("/powertable/t?x=1", status=400),
        lambda: client.get("/powertable/t/rows?x=1", status=400),
        lambda: client.post_json("/powertable/t/rows?x=1", {"a": "x"}, status=400),
        lambda: client.get("/powertable/t/rows/1?x=1", status=400),
        lambda: client.patch_json("/powertable/t/rows/1?x=1", {"a": "x"}, status=400),
        lambda: client.delete("/powertable/t/rows/1?x=1", status=400),
        lambda: client.get("/powertable/t/aggregate?x=1", status=400),
        lambda: client.post("/powertable/t/import?x=1", b"a\n1\n", status=400),
        lambda: client.get("/powertable/t/import?x=1", status=400),
        lambda: client.get("/powertable/t/export?x=1", status=400),
    ]
    for call in calls:
        assert '"x"' in call().json["detail"]
    assert client.get("/powertable").json["tables"][0]["rows"] == 0


@pytest.mark.parametrize(
    ("body", "media", "encoding"),
    [
        (case("latin1"), "text/csv; charset=latin1", "latin1"),
        (case("latin1"), 'text/csv; charset="ISO-8859-1"', "iso-8859-1"),
        (case("utf16"), "text/csv", "utf-16le"),
        (case("utf16"), "text/csv; charset=UTF-16", "utf-16le"),
        (case("utf16")[2:], "text/csv; charset=utf-16le", "utf-16le"),
        ("name\nGröße\n".encode("utf-8-sig"), "text/csv; charset=utf-8", "utf-8"),
        (b"\xfe\xff" + "name\nGröße\n".encode("utf-16be"), "text/csv", "utf-16be"),
        ("name\nGröße\n".encode("utf-32"), "text/csv", "utf-32le"),
        ("name\nGröße\n".encode("cp1252"), "text/csv; charset=windows-1252", "windows-1252"),
    ],
)
def test_an_encoding_is_obeyed(client: Client, body: bytes, media: str, encoding: str) -> None:
    answer = import_csv(client, "t", body, create="true", media=media, status=201).json
    assert answer["encoding"] == encoding
    assert rows(client) == [{"name": "Größe"}]


@pytest.mark.parametrize(
    ("body", "media", "status", "message"),
    [
        (case("latin1"), "text/csv", 422, "Line 2: invalid byte sequence, 0xf6 is no utf-8"),
        (case("latin1"), "text/csv", 422, "charset=windows-1252"),
        (case("utf16")[2:], "text/csv", 422, "charset=utf-16le"),
        (case("utf16"), "text/csv; charset=utf-8", 415, "utf-16le"),
        (case("utf16")[2:], "text/csv; charset=utf-16", 415, "utf-16be"),
        (case("utf16")[:-1], "text/csv", 422, "Line 2: invalid byte sequence, 0x0a is no utf-16le"),
        (b"a\n\xed\xa0\x80\n", "text/csv", 422, "Line 2: invalid byte sequence"),
        (b"a\r\rx\rb\xff\r", "text/csv", 422, "Line 4"),
        (b"a\nb\n\xc3", "text/csv", 422, "Line 3"),
        (b"a\n" + b"x" * (256 * 1024 - 3) + "ö".encode() + b"\xff", "text/csv", 422, "Line 2"),
        (b"a\n\x00\xd8\n\x00", "text/csv; charset=utf-16le", 422, "utf-16le"),
        (b"a\n\x81\n", "text/csv; charset=cp1252", 422, "in another encoding: say which in its C"),
        (b"a\nb\nc\0d\n", "text/csv", 422, "Line 3: invalid byte sequence, found NUL"),
        (b"a\n", "text/csv; charset=klingon", 415, "klingon"),
        (b"a\n", "text/csv; charset=base64", 415, "base64"),
        (b"a\n", "text/csv; charset=unicode_escape", 415, "unicode_escape"),
        (b"a\n", 'text/csv; charset="\'; DROP TABLE t"', 415, "drop table t"),
        (b"a\n", "text/csv; header=maybe", 415, "header="),
    ],
)
def test_an_encoding_that_does_not_fit_is_named(
    client: Client, body: bytes, media: str, status: int, message: str
) -> None:
    detail = import_csv(client, "t", body, create="true", media=media, status=status).json["detail"]
    assert message in detail
    client.get("/powertable/t", status=404)


def test_a_compressed_body_is_refused(client: Client) -> None:
    headers = {"Content-Type": "text/csv", "Content-Encoding": "gzip"}
    client.post("/powertable/t/import?create=true", b"\x1f\x8b", headers=headers, status=415)


def test_a_file_without_a_header_is_all_rows(client: Client) -> None:
    media = "text/csv; header=absent"
    answer = import_csv(client, "t", b"1,x\n2,y\n", create="true", media=media, status=201).json
    assert types(answer) == {"column_1": "integer", "column_2": "text"}
    assert import_csv(client, "t", b"3,z", media=media).json["imported"] == 1
    assert export(client) == "column_1,column_2\n1,x\n2,y\n3,z\n"
    for body, message in (
        (b"3\n", "Line 1: found 1 field and no header, expected column_1, column_2"),
        (b"", "Line 1: found nothing"),
        (b'"4\n5",x\n', 'Line 1, column "column_1"'),
        (b"4,x\n\\.\n", "Line 2: found nothing but"),
        (b"\\.\n4,x\n", "Line 1: found"),
        (b"4,x\n5\n", "Line 2: missing data"),
    ):
        detail = import_csv(client, "t", body, media=media, status=422).json["detail"]
        assert message in detail


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (",".join(["a"] * 32_000), "Line 1: Found 32000 columns, expected 100 at most"),
        (",".join(["a"] * 40_000), "Line 1: found 65,536 characters, expected a header"),
        ("a\n" + "x" * 140_000, "Line 2: found a field of more than 131,072 characters"),
        ("a\n" + "x" * 10_000_000, "Line 2: found 10,000,000 characters or more"),
    ],
)
def test_what_is_huge_is_refused_soon_and_with_its_line(
    client: Client, header: str, message: str
) -> None:
    assert message in refusal(client, header.encode(), rename="true")


def test_a_table_that_was_made_takes_a_huge_line(client: Client) -> None:
    make(client, "t", a="text")
    import_csv(client, "t", b"a\n" + b"x" * 12_000_000)
    assert len(export(client)) == 12_000_003


def test_nobody_else_reads_or_drops_the_table_of_imports(client: Client) -> None:
    create(client, b"a\n1\n")
    for method in ("GET", "DELETE"):
        client.request("/powertable/_imports", method=method, status=404)
    assert [table["name"] for table in client.get("/powertable").json["tables"]] == ["t"]


def test_blank_lines_at_the_end_are_left_out_and_counted(client: Client) -> None:
    answer = create(client, case("blank_end"))
    assert (answer["imported"], answer["blank_lines"]) == (1, 2)
    for body, blank in ((b"a,b\r\n3,4\r\n\r\n", 1), (b"a,b\r3,4\r\r\r", 2), (b"a,b\n3,4", 0)):
        answer = import_csv(client, "t", body).json
        assert (answer["imported"], answer["blank_lines"]) == (1, blank)
    many = import_csv(client, "t", b"a,b\n3,4" + b"\n" * 600_000).json
    assert (many["imported"], many["blank_lines"]) == (1, 599_999)
    assert "Line 1" in import_csv(client, "t", b"\n" * 600_000, status=422).json["detail"]


@pytest.mark.parametrize("text", ["0", "0.10", "true", "2024-02-29", "2024-02-29 10:00:00.5+00"])
def test_the_last_nulls_of_a_single_column_come_in_again(client: Client, text: str) -> None:
    create(client, f'a\n{text}\n\n""\n'.encode())
    exported = export(client)
    assert exported == f'a\n{text}\n""\n""\n'
    client.delete("/powertable/t")
    assert create(client, exported.encode())["imported"] == 3
    assert export(client) == exported


# --- dry run and progress ------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_and_changes_nothing(client: Client) -> None:
    query = {"create": "true", "dry_run": "true", "rename": "true"}
    body = b"ID;Price\n" + b"".join(b"%d;%d.50\n" % (n, n) for n in range(25))
    answer = import_csv(client, "t", body, **query).json
    assert (answer["imported"], answer["would_import"], answer["delimiter"]) == (0, 25, ";")
    assert types(answer) == {"id_2": "integer", "price": "number"}
    assert answer["encoding"] == "utf-8"
    assert answer["rows"] == [{"id_2": n, "price": n + 0.5} for n in range(10)]
    assert answer["mapping"][1] == {"header": "Price", "column": "price"}
    client.get("/powertable/t", status=404)
    assert client.get("/powertable").json == {"tables": []}
    import_csv(client, "t", body, create="true", rename="true", status=201)
    import_csv(client, "t", body, status=409, **query)
    again = {"rename": "true", "dry_run": "true"}
    assert import_csv(client, "t", body, **again).json["would_import"] == 25
    assert "Line 3" in import_csv(client, "t", b"ID\n1\nx\n", status=422, **again).json["detail"]
    # Not even a number of an id is used up.
    assert client.get("/powertable/t").json["rows"] == 25
    assert client.post_json("/powertable/t/rows", {"price": 1}, status=201).json == {"ids": [26]}


def states(client: Client) -> list[tuple[str, Any, Any]]:
    found = client.get("/powertable/t/import").json["imports"]
    return [(each["state"], each["rows"], each["error"]) for each in found]


def test_the_end_of_an_import_can_be_asked_for(client: Client) -> None:
    client.get("/powertable/nothing/import", status=404)
    number = create(client, b"a\n1\n2\n")["import"]
    import_csv(client, "t", b"a\nx\n", status=422)
    found = client.get("/powertable/t/import").json["imports"]
    failed, done = found[:2]
    assert (done["id"], done["state"], done["rows"], done["bytes"]) == (number, "done", 2, 6)
    assert failed["state"] == "failed"
    assert failed["error"].startswith('Line 2, column "a": found "x"')
    assert failed["started"] <= failed["changed"]


def test_the_progress_of_an_import_is_seen_from_another_connection(
    client: Client, psql: Cursor
) -> None:
    make(client, "t", a="text")
    psql.execute("BEGIN; LOCK TABLE t IN SHARE MODE")  # rows wait, readers do not
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(import_csv, client, "t", b"a\n" + b"x\n" * 1000)
        try:
            wait_until(lambda: states(client)[0][0] == "copying", "the import copies")
        finally:
            psql.execute("ROLLBACK")
        assert running.result(30).json["imported"] == 1000
    assert states(client)[0] == ("done", 1000, None)


def test_an_import_whose_connection_is_cut_says_so_at_its_end(client: Client, psql: Cursor) -> None:
    make(client, "t", a="text")
    psql.execute("BEGIN; LOCK TABLE t IN SHARE MODE")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(import_csv, client, "t", b"a\nx\n", "*")
        try:
            wait_until(lambda: states(client)[0][0] == "copying", "the import copies")
            psql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE relation = 't'::regclass AND pid <> pg_backend_pid()"
            )
        finally:
            psql.execute("ROLLBACK")
        assert running.result(30).status_int == 503
    state, rows, error = states(client)[0]
    assert (state, rows) == ("failed", None)
    assert "the database is away" in error
    assert client.get("/powertable/t").json["rows"] == 0


def test_two_imports_of_a_table_at_once_are_both_there_or_one_is_refused(client: Client) -> None:
    body = b"a\n" + b"1\n" * 5000
    for query, expected in (({"create": "true"}, [201, 409]), ({}, [200, 200])):
        barrier = threading.Barrier(2)

        def run(barrier: threading.Barrier = barrier, query: dict[str, str] = query) -> int:
            barrier.wait(10)
            return int(import_csv(client, "t", body, status="*", **query).status_int)

        with ThreadPoolExecutor(2) as pool:
            found = sorted(each.result(30) for each in [pool.submit(run) for _ in range(2)])
        assert found == expected
    assert client.get("/powertable/t").json["rows"] == 15_000


# --- README --------------------------------------------------------------------------------------


def test_the_file_of_the_readme_goes_in_is_asked_and_comes_out(client: Client) -> None:
    readme = (FOLDER / "README.md").read_text()
    file, calls = re.findall(r"^```\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)[:2]
    answers = re.split(r"^\$ .*\n", calls, flags=re.MULTILINE)
    paths = re.findall(r'"\$B(/.*)"', calls)
    for path, answer in zip(paths, answers[2:], strict=True):
        method = "POST" if "/import" in path else "GET"
        body = file.encode() if method == "POST" else b""
        found = client.request(f"/powertable{path}", method=method, body=body)
        # `…` stands for what is left out; the number of the import is the database's.
        shown, text = (
            re.sub('"import":[0-9]+', "", each.replace("\n ", "").strip())
            for each in (answer, found.text)
        )
        pattern = ".*".join(map(re.escape, shown.split("…")))
        assert re.fullmatch(pattern, text, re.DOTALL), (path, text)
