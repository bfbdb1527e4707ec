"""The plugin `powertable`, over HTTP, with a real PostgreSQL and a real data set."""

import csv
import datetime
import io
import itertools
import json
import os
import statistics
import threading
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
import webtest

from app.testing import load_plugin
from tests.support.powertable import (
    FOLDER,
    Client,
    drop_schema,
    import_csv,
    make,
    powertable,
)

# By its place: the package's own way to it imports pandas, which takes a second.
SPEC = find_spec("vega_datasets")
assert SPEC is not None
assert SPEC.origin is not None
WEATHER = Path(SPEC.origin).with_name("_data") / "seattle-weather.csv"
NUMBERS = ("precipitation", "temp_max", "temp_min", "wind")
NASTY = [
    None,
    "",
    " ",
    "NULL",
    "\\N",
    "\\.",
    "a\n\\.\nb",
    'say "hi"',
    '"',
    "'; DROP TABLE t; --",
    "%s %(x)s {0} $1",
    "a,b;c\td",
    "one\ntwo\r\nthree\rfour",
    "\ufeffäöü ß 日本語 🍌 e\u0301",
    "=1+1",
    "x" * 100_000,
]


@pytest.fixture(scope="module")
def weather(database_url: str) -> Iterator[Client]:
    """A client whose table `weather` was made from the file as it is; for reading only."""
    with powertable(database_url) as client:
        answer = import_csv(client, "weather", WEATHER.read_bytes(), create="true", status=201)
        assert answer.json["imported"] == len(DAYS)
        yield client


def read_days() -> list[dict[str, Any]]:
    """The data set by plain Python, as the API should answer: ids, floats and ISO dates."""
    with WEATHER.open(newline="") as file:
        return [
            {
                "id": number,
                "date": row["date"].replace("/", "-"),
                **{name: float(row[name]) for name in NUMBERS},
                "weather": row["weather"],
            }
            for number, row in enumerate(csv.DictReader(file), start=1)
        ]


DAYS = read_days()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {
            "Host": "evil.example",
            "Origin": "http://evil.example",
        },  # its name was made to point here
    ],
)
def test_no_page_of_another_site_reads_or_writes(client: Client, headers: dict[str, str]) -> None:
    make(client, "mine", x="text")
    foreign = {**headers, "Content-Type": "text/plain"}
    client.put("/powertable/theirs", '{"columns": []}', headers=foreign, status=403)
    client.post("/powertable/mine/rows", '{"x": "y"}', headers=foreign, status=403)
    client.post("/powertable/t/import?create=true", "x\n1\n", headers=foreign, status=403)
    client.delete("/powertable/mine", headers=foreign, status=403)
    client.get("/powertable/mine/rows", headers=foreign, status=403)
    own = {"Origin": "http://localhost:80", "Host": "localhost:80"}
    found = client.get("/powertable", headers=own).json["tables"]
    assert [(table["name"], table["rows"]) for table in found] == [("mine", 0)]


def all_rows(client: Client, table: str, **query: Any) -> list[dict[str, Any]]:
    """Every row of every page."""
    rows: list[dict[str, Any]] = []
    for page in itertools.count(1):
        query = {"page_size": 700, **query, "page": page}
        answer = client.get(f"/powertable/{table}/rows", query).json
        rows += answer["rows"]
        if not answer["rows"]:
            assert answer["total"] == len(rows)
            return rows
    raise AssertionError


def refused(client: Client, path: str, status: int = 400) -> str:
    return client.get(f"/powertable/{path}", status=status).json["detail"]


# --- the weather of Seattle ----------------------------------------------------------------------


def test_an_import_infers_the_types_of_the_columns(weather: Client) -> None:
    table = weather.get("/powertable/weather").json
    assert {column["name"]: column["type"] for column in table["columns"]} == {
        "date": "date",
        **dict.fromkeys(NUMBERS, "number"),
        "weather": "text",
    }
    assert table["rows"] == 1461
    assert weather.get("/powertable").json == {"tables": [table]}


def test_all_pages_together_are_the_file(weather: Client) -> None:
    assert all_rows(weather, "weather") == DAYS


@pytest.mark.parametrize(("name", "compare"), [(f.__name__, f) for f in (eq, ne, lt, le, gt, ge)])
def test_a_comparison_finds_what_python_finds(
    weather: Client, name: str, compare: Callable[[Any, Any], bool]
) -> None:
    for column, value in (
        ("id", 77),
        ("date", "2013-07-04"),
        ("temp_max", 12.8),
        ("wind", -1),
        ("weather", "rain"),
    ):
        expected = [day for day in DAYS if compare(day[column], value)]
        assert all_rows(weather, "weather", **{f"{column}__{name}": value}) == expected


def test_filters_hold_together(weather: Client) -> None:
    query = "temp_max__ge=10&temp_max__lt=20&weather__in=rain,snow&date__gt=2013/01/01"
    answer = weather.get(f"/powertable/weather/rows?{query}&weather__contains=ai&page_size=3").json
    expected = [
        day
        for day in DAYS
        if 10 <= day["temp_max"] < 20 and day["weather"] == "rain" and day["date"] > "2013-01-01"
    ]
    assert answer == {"rows": expected[:3], "page": 1, "page_size": 3, "total": len(expected)}


def test_rows_come_in_the_asked_order(weather: Client) -> None:
    expected = sorted(DAYS, key=lambda day: (day["weather"], -day["temp_max"], day["id"]))
    assert all_rows(weather, "weather", sort="weather,-temp_max") == expected


def test_a_page_past_the_end_is_empty_and_knows_the_total(weather: Client) -> None:
    answer = weather.get("/powertable/weather/rows?page=1000").json
    assert answer == {"rows": [], "page": 1000, "page_size": 50, "total": 1461}


def test_every_aggregate_is_what_python_computes(weather: Client) -> None:
    functions: dict[str, Callable[[list[float]], float]] = {
        "count": len,
        "sum": sum,
        "avg": statistics.fmean,
        "min": min,
        "max": max,
    }
    metrics = [f"{function}:{name}" for function in functions for name in NUMBERS]
    query = {"metrics": ",".join(["count", *metrics, "min:date", "max:weather"])}

    def expected(days: list[dict[str, Any]]) -> dict[str, Any]:
        values = {
            f"{function}:{name}": pytest.approx(compute([day[name] for day in days]))
            for function, compute in functions.items()
            for name in NUMBERS
        }
        first, last = min(day["date"] for day in days), max(day["weather"] for day in days)
        return {"count": len(days), **values, "min:date": first, "max:weather": last}

    answer = weather.get("/powertable/weather/aggregate", query).json
    assert answer == {
        "rows": [{"group": {}, "metrics": expected(DAYS)}],
        "page": 1,
        "page_size": 50,
        "total": 1,
    }
    groups = defaultdict(list)
    for day in DAYS:
        groups[day["weather"]].append(day)
    query["group_by"] = "weather"
    answer = weather.get("/powertable/weather/aggregate", query).json
    assert answer["rows"] == [
        {"group": {"weather": name}, "metrics": expected(groups[name])} for name in sorted(groups)
    ]


def test_groups_are_filtered_sorted_and_paged(weather: Client) -> None:
    counts: dict[str, int] = defaultdict(int)
    for day in DAYS:
        if day["wind"] > 3:
            counts[day["date"]] += 1
    dates = sorted(counts, reverse=True)
    answer = weather.get(
        "/powertable/weather/aggregate?wind__gt=3&group_by=date&sort=count,-date&page=2&page_size=10"
    ).json
    assert [row["group"]["date"] for row in answer["rows"]] == dates[10:20]
    assert answer["total"] == len(dates)
    beyond = weather.get("/powertable/weather/aggregate?group_by=weather&page=9").json
    assert (beyond["rows"], beyond["total"]) == ([], 5)


def test_an_export_imports_again_as_the_same_rows(weather: Client) -> None:
    exported = weather.get("/powertable/weather/export")
    assert exported.headers["Content-Disposition"] == 'attachment; filename="weather.csv"'
    import_csv(weather, "again", exported.body, create="true", status=201)
    assert all_rows(weather, "again") == DAYS
    weather.delete("/powertable/again", status=204)


def test_an_export_takes_filters(weather: Client) -> None:
    exported = weather.get("/powertable/weather/export?weather__eq=snow").text
    snow = [day["date"] for day in DAYS if day["weather"] == "snow"]
    assert [row["date"] for row in csv.DictReader(io.StringIO(exported))] == snow


# --- tables and rows -----------------------------------------------------------------------------


def test_a_table_lives_from_put_to_delete(client: Client) -> None:
    columns: list[dict[str, object]] = [
        {"name": "x", "type": "integer", "required": True},
        {"name": "y", "type": "text"},
    ]
    answer = client.put_json("/powertable/t", {"columns": columns}, status=201)
    assert answer.headers["Location"].endswith("/powertable/t")
    columns[1]["required"] = False
    assert client.get("/powertable/t").json == {"name": "t", "columns": columns, "rows": 0}
    client.put_json("/powertable/t", {"columns": columns}, status=409)
    client.put_json("/powertable/t_pkey", {"columns": columns}, status=409)
    client.delete("/powertable/t", status=204)
    client.delete("/powertable/t", status=404)
    for path in ("t", "t/rows", "t/rows/1", "t/aggregate", "t/export", "T", "t_pkey", "pg_class"):
        refused(client, path, status=404)
    assert client.get("/powertable").json == {"tables": []}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "expected"),
        ("x", "expected"),
        (["x"], "expected an object with name, type"),
        ([{"name": "x"}], "expected an object with name, type"),
        ([{"name": "x", "type": "integer", "size": 4}], "expected an object with name, type"),
        ([{"name": "x", "type": "varchar"}], 'found the type "varchar"'),
        ([{"name": "x", "type": "text", "required": 1}], "found required 1"),
        ([{"name": "X", "type": "text"}], 'column name "X"'),
        ([{"name": "x\n", "type": "text"}], "column name"),
        ([{"name": "x" * 64, "type": "text"}], "column name"),
        ([{"name": "id", "type": "integer"}], '"id" is taken'),
        ([{"name": "x", "type": "text"}] * 2, '"x" twice'),
        ([{"name": "xmin", "type": "text"}], 'keeps for itself the column name "xmin"'),
        (
            [
                {"name": "x", "type": "text"},
                {"name": "Y", "type": "text"},
                {"name": "Z", "type": "text"},
            ],
            '"Y", "Z"',
        ),
        ([{"name": f"x{n}", "type": "text"} for n in range(101)], "100 at most"),
    ],
)
def test_a_bad_definition_is_refused_by_name(client: Client, columns: Any, message: str) -> None:
    answer = client.put_json("/powertable/t", {"columns": columns}, status=422)
    assert message in answer.json["detail"]


def test_rows_are_added_changed_and_deleted(client: Client) -> None:
    make(client, "t", a="integer!", b="number", c="boolean", d="date", e="timestamp", f="text")
    full = {"a": 1, "b": 2, "c": False, "d": "2024/02/29", "e": "2024-01-01T12:00+02:00", "f": ""}
    assert client.post_json("/powertable/t/rows", full, status=201).json == {"ids": [1]}
    more = [{"a": n} for n in range(2, 2502)]
    ids = client.post_json("/powertable/t/rows", more, status=201).json["ids"]
    assert ids == list(range(2, 2502))
    kept = {"id": 1, **full, "b": 2.0, "d": "2024-02-29", "e": "2024-01-01T10:00:00+00:00"}
    assert client.get("/powertable/t/rows/1").json == kept
    changed = client.patch_json("/powertable/t/rows/1", {"c": True, "f": None}).json
    assert changed == {**kept, "c": True, "f": None}
    assert client.get("/powertable/t/rows?e__eq=2024-01-01T10:00:00Z").json["rows"] == [changed]
    assert client.get("/powertable/t/rows?f__null=true&c__null=false").json["total"] == 1
    client.delete("/powertable/t/rows/1", status=204)
    for row_id in (1, 0, 10**30):
        client.delete(f"/powertable/t/rows/{row_id}", status=404)
        client.get(f"/powertable/t/rows/{row_id}", status=404)
        client.patch_json(f"/powertable/t/rows/{row_id}", {"a": 1}, status=404)


def test_a_number_that_json_does_not_have_is_refused(client: Client) -> None:
    make(client, "t", x="number")
    answer = client.post("/powertable/t/rows", '{"x": NaN}', status=400)
    assert "NaN is no JSON" in answer.json["detail"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", True),
        ("integer", 1.0),
        ("integer", "1"),
        ("integer", 2**63),
        ("number", "1"),
        ("number", 10**1000),
        ("double", "1"),
        ("double", 10**400),
        ("boolean", 1),
        ("text", 1),
        ("text", ["a"]),
        ("text", "a\0b"),
        ("text", "\ud800"),
        ("date", "today"),
        ("date", "2023-02-29"),
        ("date", "infinity"),
        ("timestamp", "now"),
        ("timestamp", "0001-01-01T00:00+14:00"),
        ("text!", None),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(client: Client, kind: str, value: Any) -> None:
    make(client, "t", x=kind, y="integer")
    answer = client.post_json("/powertable/t/rows", [{"x": None}, {"x": value}][-1:], status=422)
    assert answer.json["detail"].startswith('Row 1: Column "x": found ')
    client.patch_json("/powertable/t/rows/1", {"x": value}, status=422)
    assert client.get("/powertable/t").json["rows"] == 0


def test_an_unknown_column_or_an_empty_body_is_refused(client: Client) -> None:
    make(client, "t", x="text")
    for body in ({"z": 1}, {"id": 7, "x": "a"}, [], [1], ["\ud800"], [{"x": "a"}, {"z": 1}]):
        client.post_json("/powertable/t/rows", body, status=422)
    client.patch_json("/powertable/t/rows/1", {}, status=422)
    assert client.get("/powertable/t").json["rows"] == 0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("rows?z__eq=1", 'found the column "z", expected id, n, s'),
        ("rows?n__near=1", 'Column "n": found the operator "near", expected eq, ne'),
        ("rows?n__gt=warm", 'Column "n": found "warm", expected a whole number of 64 bits'),
        ("rows?n__gt=99999999999999999999", "expected a whole number"),
        ("rows?n__in=1,x", 'found "x"'),
        ("rows?n__in=", "expected values such as"),
        ("rows?s__in=%22a", "expected values such as"),
        ("rows?s__eq=%00", "expected text"),
        ("rows?n__contains=1", "contains takes text"),
        ("rows?n__null=maybe", "expected true or false"),
        ("rows?n=1", 'Found the parameter "n"'),
        ("rows?sort=-z", 'found the column "z"'),
        ("rows?page=0", "page"),
        ("rows?page=99999999999999999999", "page"),
        ("rows?page_size=1001", "page_size"),
        ("export?page=1", 'Found the parameter "page"'),
        ("aggregate?metrics=median:n", 'found "median:n", expected count or'),
        ("aggregate?metrics=avg", "expected count or"),
        ("aggregate?metrics=avg:s", 'avg of column "s", which is text'),
        ("aggregate?metrics=sum:z", 'found the column "z"'),
        ("aggregate?group_by=z", 'found the column "z"'),
        ("aggregate?group_by=s&sort=n", 'sort: found "n", expected s, count'),
    ],
)
def test_a_bad_query_is_refused_with_what_was_found_and_expected(
    client: Client, query: str, message: str
) -> None:
    make(client, "t", n="integer", s="text")
    assert message in refused(client, f"t/{query}")


INJECTIONS = ("x; DROP TABLE t", 'x" OR 1=1 --', "x'); DELETE FROM t; --", "1=1", "*", "%s", "{0}")


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_text_of_a_request_becomes_sql(client: Client, text: str) -> None:
    make(client, "t", x="text")
    client.post_json("/powertable/t/rows", [{"x": "a"}, {"x": text}], status=201)
    name = quote(text, safe="")
    for path in (name, f"{name}/rows", f"{name}/export", f"{name}/aggregate"):
        refused(client, path, status=404)
    client.put_json(f"/powertable/{name}", {"columns": [{"name": "x", "type": "text"}]}, status=422)
    columns = [{"name": text, "type": "text"}]
    client.put_json("/powertable/u", {"columns": columns}, status=422)
    client.put_json("/powertable/u", {"columns": [{"name": "x", "type": text}]}, status=422)
    client.post_json("/powertable/t/rows", {text: "a"}, status=422)
    client.patch_json("/powertable/t/rows/1", {text: "a"}, status=422)
    import_csv(client, "t", f'"{text}"\na\n'.encode(), status=422)
    import_csv(client, "u", f'"{text}"\na\n'.encode(), create="true", status=422)
    for query in (
        f"rows?{name}__eq=a",
        f"rows?x__{name}=a",
        f"rows?sort={name}",
        f"aggregate?metrics={name}",
        f"aggregate?metrics=min:{name}",
        f"aggregate?metrics={name}:x",
        f"aggregate?group_by={name}",
        f"aggregate?group_by=x&sort={name}",
    ):
        refused(client, f"t/{query}")
    for operator in ("eq", "contains"):
        found = client.get("/powertable/t/rows", {f"x__{operator}": text}).json["rows"]
        assert [row["x"] for row in found] == [text]
    assert client.patch_json("/powertable/t/rows/1", {"x": text}).json["x"] == text
    assert client.get("/powertable").json["tables"][0]["rows"] == 2


def test_a_sum_that_no_double_holds_is_refused(client: Client) -> None:
    make(client, "t", x="double", y="integer")
    rows = [{"x": 1e308, "y": 2**63 - 1}] * 2
    client.post_json("/powertable/t/rows", rows, status=201)
    refused(client, "t/aggregate?metrics=sum:x", status=422)
    answer = client.get("/powertable/t/aggregate?metrics=sum:y").json
    assert answer["rows"][0]["metrics"] == {"sum:y": 2**64 - 2}


# --- CSV -----------------------------------------------------------------------------------------


def test_nasty_values_survive_export_and_import(client: Client) -> None:
    types = {"a": "text", "b": "integer", "c": "number", "d": "boolean", "e": "date"}
    types["f"] = "timestamp"
    make(client, "t", **types)
    make(client, "copy", **types)
    values = [
        (-(2**63), 0.1 + 0.2, True, "0001-01-01", "0001-01-01T00:00:00+00:00"),
        (2**63 - 1, 5e-324, False, "9999-12-31", "9999-12-31T23:59:59.999999+00:00"),
        (0, -1234567890.125, None, "2024-02-29", "2024-03-31T01:30:00.000001+00:00"),
        (None, None, None, None, None),
    ]
    rows = [
        {"a": text, **dict(zip("bcdef", row, strict=True))}
        for text, row in zip(NASTY, itertools.cycle(values), strict=False)
    ]
    client.post_json("/powertable/t/rows", rows, status=201)
    kept = client.get("/powertable/t/rows").json["rows"]
    assert [{**row, "id": None} for row in kept] == [{"id": None, **row} for row in rows]
    exported = client.get("/powertable/t/export").body
    assert import_csv(client, "copy", exported).json["imported"] == len(rows)
    assert client.get("/powertable/copy/rows").json["rows"] == kept
    assert client.get("/powertable/copy/export").body == exported
    inferred = import_csv(client, "new", exported, create="true", status=201).json["columns"]
    assert {column["name"]: column["type"] for column in inferred} == types
    assert client.get("/powertable/new/rows").json["rows"] == kept


def test_a_table_of_one_text_column_survives_too(client: Client) -> None:
    make(client, "t", a="text")
    client.post_json("/powertable/t/rows", [{"a": text} for text in NASTY], status=201)
    exported = client.get("/powertable/t/export").body
    import_csv(client, "u", exported, create="true", status=201)
    found = client.get("/powertable/u/rows").json["rows"]
    assert [row["a"] for row in found] == NASTY


def test_an_import_takes_any_order_a_subset_a_bom_and_crlf(client: Client) -> None:
    make(client, "t", a="integer!", b="text", c="date")
    import_csv(client, "t", b'\xef\xbb\xbf"b",a\r\n"",1\r\n,"2"\r\n')
    rows = [{"id": 1, "a": 1, "b": "", "c": None}, {"id": 2, "a": 2, "b": None, "c": None}]
    assert client.get("/powertable/t/rows").json["rows"] == rows


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Line 1: found"),
        (b"b\nx\n", "Line 1: found no a, expected all required columns"),
        (b"a,z\n1,2\n", 'Line 1: found the column "z", expected some of a, b, n, d'),
        (b"a,id\n1,2\n", 'Line 1: found the column "id"'),
        (b"a,a\n1,2\n", '"a" twice'),
        (b'"a\n1\n', "Line 1"),
        (b"\xff\n1\n", "Line 1"),
        (b"a\n1\n\n2\n", 'Line 3, column "a": found nothing, expected a whole number of 64 bits'),
        (b"a,b\n1,x\n2\n", 'Line 3: missing data for column "b"'),
        (b"a,b\n1,x,y\n", "Line 2: extra data"),
        (b'a,b\n1,"x\ny"\n2,"z\n', "Line 4: the quote is never closed"),
        (b"a\n1\ntwo\n", 'Line 3, column "a": found "two", expected a whole number of 64 bits'),
        (b'b,a\n"1\n2\n3",1\n,x\n', 'Line 5, column "a": found "x"'),
        (b"a,n\n1,NaN\n", 'Line 2, column "n": found "NaN", expected a number'),
        (b"a,d\n1,infinity\n", 'Line 2, column "d": found "infinity", expected a date'),
        (b"a,d\n1,31/12/2024\n", 'Line 2, column "d": found "31/12/2024", expected a date'),
        (b"a,b\n1,x\n2,\xff\n", "Line 3: invalid byte sequence"),
        (b"a,b\n1,x\n2,a\0b\n", "Line 3: invalid byte sequence"),
        (b"a\n1\n\\.\n3\n", r"Line 3: found nothing but \."),
        (b"a\n1\n\\.", r"Line 3: found nothing but \."),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_imported(
    client: Client, body: bytes, message: str
) -> None:
    make(client, "t", a="integer!", b="text", n="number", d="date")
    answer = import_csv(client, "t", body, status=422)
    assert message in answer.json["detail"]
    assert client.get("/powertable/t").json["rows"] == 0


def test_a_form_or_json_is_no_csv(client: Client) -> None:
    make(client, "t", a="text")
    client.post_json("/powertable/t/import", {}, status=415)
    client.post("/powertable/t/import", upload_files=[("f", "f.csv", b"a\n1\n")], status=415)
    client.post("/powertable/t/import", b"a\n1\n")  # as `curl --data-binary` sends it
    assert client.get("/powertable/t").json["rows"] == 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["true", "false", ""], "boolean"),
        (["1", "-9223372036854775808", ""], "integer"),
        (["1", "2.5", "-0.30000000000000004"], "number"),
        (["2024-01-01", "2024/12/31"], "date"),
        (["2024-01-01", "2024-01-01 10:00:00+00"], "timestamp"),
        (["", ""], "text"),
        (["98101", "00501"], "text"),
        (["1", "9223372036854775808"], "number"),
        (["0.5", "9007199254740993"], "number"),
        (["0.1234567890123456789"], "number"),
        (["9" * 1000 + "." + "9" * 1000], "number"),
        (["9" * 1001], "text"),
        (["0." + "9" * 1001], "text"),
        (["1.5", "1e-7"], "text"),
        (["1", "-0"], "text"),
        (["1.5", "-0.00"], "text"),
        (["1", "+1"], "text"),
        (["1.", "1"], "text"),
        (["2024-01-01 10:00:00+15:59"], "timestamp"),
        (["2024-01-01 10:00:00-16:00"], "text"),
        (["1e400"], "text"),
        (["1e-400"], "text"),
        (["1.5", "NaN"], "text"),
        (["2024-01-01", "today"], "text"),
        (["2024-01-01", "2023-02-29"], "text"),
        (["true", "yes"], "text"),
        (["1", " 2"], "text"),
        (["1"] * 20_000 + ["x"], "text"),
    ],
)
def test_a_type_is_inferred_only_if_every_value_has_it(
    client: Client, values: list[str], kind: str
) -> None:
    body = "\n".join(["v,other", *(f"{value},a" for value in values), ""]).encode()
    answer = import_csv(client, "t", body, create="true", status=201).json
    assert (answer["columns"][0]["type"], answer["imported"]) == (kind, len(values))


def test_an_import_that_fails_leaves_no_new_table(client: Client) -> None:
    for body in (b"a,b\n1\n", b"Big Name\n1\n", b"id\n1\n", b"a\n" + b'"' + b"x" * 200_000):
        import_csv(client, "t", body, create="true", status=422)
        client.get("/powertable/t", status=404)
    import_csv(client, "t", b"a\n1\n", create="true", status=201)
    import_csv(client, "t", b"a\n2\n", create="true", status=409)


# --- size, and many at once ----------------------------------------------------------------------


class Body(io.RawIOBase):
    """A request's body that is made while it is read, and never whole."""

    def __init__(self, header: bytes, block: bytes, blocks: int) -> None:
        self._parts = itertools.chain([header], itertools.repeat(block, blocks))
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (part := next(self._parts, b"")):
            self._rest += part
        answer, self._rest = self._rest[:size], self._rest[size:]
        return answer


@contextmanager
def call(
    client: Client, path: str, method: str = "GET", **environ: Any
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Call the application itself, which gives its answer piece by piece."""
    request = webtest.TestRequest.blank(path, method=method)
    request.environ.update(environ)
    status: list[str] = []
    pieces = client.app(request.environ, lambda line, *_: status.append(line))
    try:
        yield status[0], iter(pieces)
    finally:
        getattr(pieces, "close", lambda: None)()


@pytest.mark.soak
@pytest.mark.parametrize("chunked", [True, False])
def test_a_large_csv_passes_in_little_memory(client: Client, chunked: bool) -> None:
    make(client, "t", a="integer", b="number", c="text")
    block = b"".join(b'%d,%d.5,"some ""text"" %d"\n' % (n, n, n) for n in range(10_000))
    body = Body(b"a,b,c\n", block, 80)
    size = 6 + 80 * len(block)
    assert size > 25_000_000
    length: dict[str, Any] = (
        {"wsgi.input_terminated": True} if chunked else {"CONTENT_LENGTH": str(size)}
    )
    tracemalloc.start()
    try:
        length["wsgi.input"] = body
        with call(client, "/powertable/t/import", "POST", **length) as (_, pieces):
            answer = b"".join(pieces)
        with call(client, "/powertable/t/export") as (_, pieces):
            exported = sum(map(len, pieces))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert json.loads(answer)["imported"] == 800_000
    # 26 MB each way; the most that a piece can be held is twice, next to the machinery around.
    assert exported == size
    assert peak < 4_000_000


def test_a_body_cut_short_imports_nothing(client: Client) -> None:
    make(client, "t", a="integer")
    environ = {"wsgi.input": Body(b"a\n", b"1\n", 10), "CONTENT_LENGTH": "1000"}
    with call(client, "/powertable/t/import", "POST", **environ) as (status, pieces):
        assert status.startswith("400")
        assert b"expected the 1,000 of Content-Length" in b"".join(pieces)
    assert client.get("/powertable/t").json["rows"] == 0


def test_limits_come_from_the_configuration(database_url: str) -> None:
    limits = {"max_import_bytes": 10, "page_size": 2, "max_columns": 1, "max_insert_rows": 3}
    with powertable(database_url, **limits) as client:
        make(client, "t", a="integer")
        import_csv(client, "t", b"a\n1\n2\n3\n4\n")
        import_csv(client, "t", b"a\n1\n2\n3\n4\n5", status=413)
        assert len(client.get("/powertable/t/rows").json["rows"]) == 2
        client.post_json("/powertable/t/rows", [{"a": 1}] * 4, status=422)
        import_csv(client, "u", b"a,b\n", create="true", status=422)


@pytest.mark.parametrize(
    "config",
    [{"schema": "public"}, {"schema": "pg_temp"}, {"schema": "X"}, {"page_size": 0}, {"pages": 1}],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    database_url: str, config: dict[str, Any]
) -> None:
    with (
        # A ValueError here, wrapped by who loads it for real.
        pytest.raises(Exception, match=r"config: found .* expected"),
        load_plugin(FOLDER, database_url=database_url, config=config),
    ):
        pass


def test_a_reader_that_goes_away_gives_everything_back(client: Client) -> None:
    make(client, "t", a="text")
    import_csv(client, "t", b"a\n" + b"text\n" * 100_000)
    # More than the pool has connections.
    for _ in range(20):
        with call(client, "/powertable/t/export") as (_, pieces):
            assert next(pieces).startswith(b"a\n")
    client.delete("/powertable/t", status=204)


def test_many_processes_can_initialize_at_once(database_url: str) -> None:
    many = 8

    def initialize(schema: str, barrier: threading.Barrier) -> None:
        barrier.wait(10)
        with load_plugin(FOLDER, database_url=database_url, config={"schema": schema}) as plugin:
            plugin.client.get("/powertable", status=200)

    with ThreadPoolExecutor(many) as pool:
        for attempt in range(2):
            schema = f"powertable_race_{os.getpid()}_{attempt}"
            barrier = threading.Barrier(many)
            for done in [pool.submit(initialize, schema, barrier) for _ in range(many)]:
                done.result(30)
            drop_schema(database_url, schema)


def test_rows_written_at_once_are_all_there(client: Client) -> None:
    make(client, "t", writer="integer", n="integer")

    def write(writer: int) -> list[int]:
        ids = []
        for n in range(25):
            row = {"writer": writer, "n": n}
            ids += client.post_json("/powertable/t/rows", row, status=201).json["ids"]
            client.patch_json(f"/powertable/t/rows/{ids[-1]}", {"n": n + 1}, status=200)
        client.delete(f"/powertable/t/rows/{ids[0]}", status=204)
        return ids[1:]

    with ThreadPoolExecutor(8) as pool:
        ids = [row_id for written in pool.map(write, range(8)) for row_id in written]
    assert len(set(ids)) == 8 * 24
    query = "metrics=count,min:n,max:n,sum:n&group_by=writer"
    groups = client.get(f"/powertable/t/aggregate?{query}").json["rows"]
    assert len(groups) == 8
    for group in groups:
        expected = {"count": 24, "min:n": 2, "max:n": 25, "sum:n": sum(range(2, 26))}
        assert group["metrics"] == expected


def test_of_two_that_create_a_table_one_wins(client: Client) -> None:
    body = {"columns": [{"name": "x", "type": "text"}]}
    for attempt in range(10):
        barrier = threading.Barrier(6)

        def create(barrier: threading.Barrier = barrier, attempt: int = attempt) -> int:
            barrier.wait(10)
            return client.put_json(f"/powertable/t{attempt}", body, expect_errors=True).status_int

        with ThreadPoolExecutor(6) as pool:
            statuses = sorted(done.result(30) for done in [pool.submit(create) for _ in range(6)])
        assert statuses == [201, *[409] * 5]


def test_a_table_that_was_altered_in_psql_is_seen_as_it_is(database_url: str) -> None:
    schema = f"powertable_psql_{os.getpid()}"
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(
                load_plugin(FOLDER, database_url=database_url, config={"schema": schema})
            )
            for _ in range(2)
        )
        stack.callback(drop_schema, database_url, schema)
        make(one.client, "t", a="text")
        two.client.post_json("/powertable/t/rows", {"a": "x"}, status=201)
        with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"ALTER TABLE {schema}.t DROP a; ALTER TABLE {schema}.t ADD b date, ADD j jsonb; "
                f"CREATE TABLE {schema}.foreign_one (x text)"
            )
        connection.close()
        today = datetime.date(2024, 5, 6).isoformat()
        for plugin in (one, two):
            plugin.client.post_json("/powertable/t/rows", {"b": today}, status=201)
            assert plugin.client.get("/powertable/t/rows/1").json == {"id": 1, "b": None}
            assert [table["name"] for table in plugin.client.get("/powertable").json["tables"]] == [
                "t"
            ]
        one.client.delete("/powertable/t", status=204)
        two.client.get("/powertable/t/rows", status=404)
