"""What an import of powertable costs: against PostgreSQL's own COPY, and in memory."""

import contextlib
import http.client
import random
import shutil
import time
from pathlib import Path

import psycopg2

from tests.benchmarks.measure import Figure, flat, in_turns, median, short, spread
from tests.benchmarks.servers import BenchServer, Rig
from tests.support.checkout import CHECKOUT

HEADER = "order_no,customer,price,quantity,sold_on,open,note,at\n"
COLUMNS = (
    "id bigint GENERATED ALWAYS AS IDENTITY, order_no bigint, customer text, price numeric,"
    " quantity bigint, sold_on date, open boolean, note text, at timestamptz"
)
_BLOCK = 1 << 20


def measure(rig: Rig) -> list[Figure]:
    """Measure a file of all types, 100 MB of it, and the worker's peak beside a tenth of that."""
    size = rig.pick(2_000_000, 100_000_000)
    home = rig.home("import")
    small, large = write_csv(home / "small.csv", size // 10), write_csv(home / "large.csv", size)
    url = rig.database()
    server = BenchServer(home, url, WEB_CONCURRENCY="1")
    shutil.copytree(
        CHECKOUT / "plugins" / "powertable",
        server.plugins / "powertable",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    with server.running(), contextlib.closing(psycopg2.connect(url)) as connection:
        (pid,) = server.workers()
        post(server, small)
        before = peak_kilobytes(pid)
        found = in_turns(
            rig.pick(1, 5),
            {"ours": lambda: [post(server, large)], "COPY": lambda: [copy(connection, large)]},
        )
        grown = peak_kilobytes(pid) - before
    ours, plain = flat(found["ours"]), flat(found["COPY"])
    ratio = median([a / b for a, b in zip(ours, plain, strict=True)])
    megabytes = size // 1_000_000
    return [
        Figure(
            *(f"powertable: import of {megabytes} MB", median(ours), "s", "COPY"),
            *(median(plain), ratio, "ratio ≤ 4.8", ratio <= 4.8),
            f"{spread(ours)} / {spread(plain)}",
            "into a new table of 8 columns: body to disk, encoding, quotes and types of all "
            "values, then COPY; the peer knows the types and reads the file; the ratio was 4.85 "
            "before all that was checked",
            {"ours": ours, "COPY": plain},
        ),
        Figure(
            *("powertable: memory of that import", grown / 1024, "MB", "", None, None),
            *("≤ 16 MB", grown <= 16 * 1024, f"peak before {short(before / 1024)} MB"),
            f"how much the worker's peak (VmHWM) grows beyond that of an import of "
            f"{megabytes / 10:g} MB",
        ),
    ]


def write_csv(path: Path, size: int) -> Path:
    """Write a CSV of all types, of so many bytes and a little more."""
    chance = random.Random(5)
    with path.open("w") as file:
        file.write(HEADER)
        number = 0
        while file.tell() < size:
            rows = []
            for _ in range(1000):
                number += 1
                month, day = chance.randrange(1, 13), chance.randrange(1, 29)
                rows.append(
                    f"{number},Customer {chance.randrange(10_000)},"
                    f"{chance.randrange(1, 99_999) / 100:.2f},{chance.randrange(1, 50)},"
                    f"2024-{month:02}-{day:02},{'true' if number % 3 else 'false'},"
                    f'"a note, number {chance.randrange(10**9)}",'
                    f"2024-{month:02}-{day:02}T1{number % 10}:00:00Z\n"
                )
            file.write("".join(rows))
    return path


def post(server: BenchServer, path: Path) -> float:
    """Import a file into a new table, drop that, and return the seconds of the import."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, 600)) as caller:
        began = time.monotonic()
        with path.open("rb") as body:
            caller.request(
                "POST",
                "/powertable/measured/import?create=true",
                body=body,
                headers={"Content-Type": "text/csv", "Content-Length": str(path.stat().st_size)},
            )
            answer = caller.getresponse()
            text = answer.read()
        took = time.monotonic() - began
        assert answer.status == 201, text
        caller.request("DELETE", "/powertable/measured")
        caller.getresponse().read()
    return took


def copy(connection: "psycopg2.extensions.connection", path: Path) -> float:
    """Read a file by COPY into a new table, drop that, and return the seconds of the reading."""
    with connection.cursor() as cursor:
        began = time.monotonic()
        cursor.execute(f"CREATE TABLE plain_copy ({COLUMNS})")
        with path.open("rb") as file:
            cursor.copy_expert(
                f"COPY plain_copy ({HEADER.strip()}) FROM STDIN WITH (FORMAT csv, HEADER)",
                file,
                _BLOCK,
            )
        connection.commit()
        took = time.monotonic() - began
        cursor.execute("DROP TABLE plain_copy")
        connection.commit()
    return took


def peak_kilobytes(pid: int) -> int:
    """Return the most memory that a process has had resident so far; see proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
