"""Exactly Falcon: the same resources and the same bytes to Benana and to a plain `falcon.App`.

Both run in gunicorn's gthread. What comes back is the same, but for what `DIFFERENCES` lists, each
with its reason.
"""

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.server import Server, free_port
from tests.support.waiting import wait_until

LAST = b"Connection: close\r\n"


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: example.com", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    return get(path, f"Content-Length: {len(body)}", *headers, method=method) + body


def chunked(
    path: str, *parts: bytes, end: bytes = b"0\r\n\r\n", headers: Sequence[str] = ()
) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return get(path, "Transfer-Encoding: chunked", *headers, method="POST") + body + end


def kept(request: bytes) -> bytes:
    """Make a request that leaves its connection open."""
    return request.replace(LAST, b"", 1)


JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
MULTIPART = "Content-Type: multipart/form-data; boundary=b"
PARTS = (
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n'
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n\r\ntwo\r\n--b--\r\n'
)

REQUESTS: dict[str, bytes] = {}
for code in (200, 201, 202, 203, 205, 206, 300, 400, 404, 418, 451, 500, 503, 799):
    REQUESTS[f"status {code}"] = get(f"/same/status/{code}")
for code in (204, 304):
    REQUESTS[f"status {code}"] = get(f"/same/status/{code}")
    REQUESTS[f"status {code} over HTTP/1.0"] = get(f"/same/status/{code}", version="1.0")
REQUESTS["a status line"] = get("/same/status-line")
REQUESTS["a status number"] = get("/same/status-number")

for kind in (
    *("text", "bytes-as-text", "data", "empty-data", "media", "media-without-type", "form", "all"),
    *("subclass", "no-content", "not-modified", "wrong-length", "untouched"),
):
    REQUESTS[f"body {kind}"] = get(f"/same/body/{kind}")
    REQUESTS[f"body {kind}, HEAD"] = get(f"/same/body/{kind}", method="HEAD")
    REQUESTS[f"body {kind}, HTTP/1.0"] = get(f"/same/body/{kind}", version="1.0")
REQUESTS["OPTIONS of its own"] = get("/same/body/text", method="OPTIONS")

for kind in (
    *("generator", "list", "empty", "length", "longer", "raises", "raises-at-once"),
    *("raises-with-length", "text-later"),
):
    REQUESTS[f"stream {kind}"] = get(f"/same/stream/{kind}")
    REQUESTS[f"stream {kind}, HEAD"] = get(f"/same/stream/{kind}", method="HEAD")
    REQUESTS[f"stream {kind}, HTTP/1.0"] = get(f"/same/stream/{kind}", version="1.0")

for kind in ("file", "file-unknown", "file-like"):
    REQUESTS[kind] = get(f"/same/{kind}")
    REQUESTS[f"{kind}, HTTP/1.0"] = get(f"/same/{kind}", version="1.0")
REQUESTS["file, HEAD"] = get("/same/file", method="HEAD")
for span in ("0-0", "100-199", "-5", "102399-", "200000-", "5-2", "x", "0-1,3-4"):
    REQUESTS[f"range {span}"] = get("/same/file", f"Range: bytes={span}")

REQUESTS["headers"] = get("/same/headers")
REQUESTS["cookies"] = get("/same/cookies", "Cookie: x=1; y=2; x=3; bad")
for number in ("301", "302", "303", "307", "308"):
    REQUESTS[f"redirect {number}"] = get(f"/same/redirect/{number}")
REQUESTS["redirect of POST"] = post("/same/redirect/307", b"abc")

for path in (
    *("", "?a=1&b=2&a=3&c", "?x=%C3%BC&y=%ff&z=a+b", "?a=1,2&=3&&q=%", "?" + "a" * 3000, "?a#b"),
    *("/", "%2f", "%00", "//"),
):
    REQUESTS[f"request {path[:20]}"] = get(f"/same/request{path}")
REQUESTS["request in absolute form"] = get("http://other.example/same/request?x=1")
REQUESTS["request //same"] = get("//same/request")
REQUESTS["request with headers"] = get(
    "/same/request",
    *("Accept: text/html;q=0.5, */*", "X-Twice: 1", "X-Twice: 2", 'If-None-Match: W/"a", "b"'),
    *("Authorization: Basic eA==", "User-Agent: test", "Cookie: a=b", "X-L: \xe9"),
    *("X-Forwarded-Host: f.example", "Range: bytes=1-2", "Content-Type: text/plain"),
)
REQUESTS["request with a port"] = get("/same/request").replace(b"example.com", b"example.com:81")
REQUESTS["a parameter"] = get("/same/request-number?n=5")
REQUESTS["a parameter that is missing"] = get("/same/request-number")
REQUESTS["a parameter that is no number"] = get("/same/request-number?n=x")
REQUESTS["a parameter that is too small"] = get("/same/request-number?n=0")
for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
    REQUESTS[f"method {method}"] = get("/same/request", method=method)
for method in ("POST", "PROPFIND", "LOCK", "FOO", "WEBSOCKET", "get", "CONNECT"):
    REQUESTS[f"method {method} of what has GET alone"] = get("/same/get", method=method)
for method in ("HEAD", "OPTIONS"):
    REQUESTS[f"method {method} of what has GET alone"] = get("/same/get", method=method)
REQUESTS["OPTIONS *"] = get("*", method="OPTIONS")

for how in (
    *("bounded", "stream", "pieces", "lines", "readline", "readlines", "nothing", "streamed"),
    *("env", "twice"),
):
    REQUESTS[f"read {how}"] = post(f"/same/read/{how}", b"one\ntwo\nthree")
    REQUESTS[f"read {how}, empty"] = post(f"/same/read/{how}", b"")
    REQUESTS[f"read {how}, no length"] = get(f"/same/read/{how}", method="POST")
    REQUESTS[f"read {how}, chunked"] = chunked(f"/same/read/{how}", b"one\nt", b"wo\n", b"three")
    REQUESTS[f"read {how}, chunked, empty"] = chunked(f"/same/read/{how}")
for name, raw in {
    "json": b'{"a": [1, "\xc3\xbc"]}',
    "no json": b"{",
    "no utf-8": b'"\xff"',
    "null": b"null",
    "NaN": b"[NaN, 1e999]",
    "surrogate": b'"\\ud800"',
    "many digits": b"9" * 5000,
    "deep": b"[" * 900 + b"]" * 900,
    "too deep": b"[" * 5000 + b"]" * 5000,
    "BOM": b"\xef\xbb\xbf{}",
    "twice": b'{"a": 1, "a": 2}',
    "empty": b"",
}.items():
    REQUESTS[f"media {name}"] = post("/same/read/media", raw, JSON)
    REQUESTS[f"media or none {name}"] = post("/same/read/media-or-none", raw, JSON)
REQUESTS["media chunked"] = chunked("/same/read/media", b'{"a"', b": 1}", headers=[JSON])
REQUESTS["media form"] = post("/same/read/media", b"a=1&b=%C3%BC&a=2", FORM)
REQUESTS["media of an unknown type"] = post("/same/read/media", b"x", "Content-Type: text/x")
REQUESTS["media without a type"] = post("/same/read/media", b"[1]")
REQUESTS["media multipart"] = post("/same/read/multipart", PARTS, MULTIPART)
REQUESTS["media multipart, chunked"] = chunked("/same/read/multipart", PARTS, headers=[MULTIPART])
REQUESTS["media multipart, cut"] = post("/same/read/multipart", PARTS[:-9], MULTIPART)

for kind in (
    *("bad", "plain", "number", "line", "unknown", "headers", "unauthorized", "not-allowed"),
    *("unavailable", "status", "own", "own-json", "exception", "renders-not", "renders-415"),
    *("route", "none"),
):
    REQUESTS[f"error {kind}"] = get(f"/same/error/{kind}")
    REQUESTS[f"error {kind}, HEAD"] = get(f"/same/error/{kind}", method="HEAD")
REQUESTS["error with a body that is not read"] = post("/same/error/x", b"x" * 100_000)
for path in ("/nothing", "/same", "/same/get/", "/same/get/more", "/%ff", "/same/GET"):
    REQUESTS[f"no route {path}"] = get(path)

for name, headers in {
    "passes": (),
    "refuses before": ("X-Refuse: 1",),
    "refuses after": ("X-Refuse-After: 1",),
}.items():
    REQUESTS[f"hook {name}"] = get("/same/hook/me", *headers)
    REQUESTS[f"hook {name}, POST"] = post("/same/hook/me", b"x", *headers)

for path in (
    *("int/5", "int/-5", "int/x", "int/%201", "int/1%0A", "int/5.0", "int/" + "9" * 5000),
    *("int2/12", "int2/1", "int2/09", "float/1.5", "float/nan", "float/1e999", "float/x"),
    *("uuid/12345678-1234-5678-1234-567812345678", "uuid/x", "dt/2020-01-02T03:04:05Z", "dt/x"),
    *("path/a/b/c", "path/a%2Fb", "path/", "two/a-b.c", "two/a-b-c.d.e", "two/ab", "x/y"),
    *("%C3%BC/a%20b", "a+b/c%2Bd", "%ff/x", "x/y/other", "x/%00"),
):
    REQUESTS[f"field {path[:40]}"] = get(f"/same/field/{path}")
REQUESTS["a suffix's other method"] = get("/same/field/x/y/other", method="DELETE")
REQUESTS["a suffix's missing method"] = get("/same/field/x/y/other", method="PUT")

REQUESTS["Expect: 100-continue"] = post("/same/read/bounded", b"body", "Expect: 100-continue")
REQUESTS["Expect: something else"] = post("/same/read/bounded", b"body", "Expect: wonders")
REQUESTS["two kept alive"] = kept(get("/same/get")) + get("/same/headers")
REQUESTS["three in a pipeline"] = (
    kept(post("/same/read/bounded", b"one"))
    + kept(chunked("/same/read/nothing", b"two"))
    + post("/same/read/bounded", b"three")
)
REQUESTS["a stream, then another request"] = kept(get("/same/stream/generator")) + get("/same/get")
REQUESTS["a file, then another request"] = kept(get("/same/file")) + get("/same/get")
REQUESTS["HEAD, then another request"] = kept(get("/same/file", method="HEAD")) + get("/same/get")
REQUESTS["204, then another request"] = kept(get("/same/status/204")) + get("/same/get")
REQUESTS["an error, then another request"] = kept(get("/same/error/bad")) + get("/same/get")
REQUESTS["an exception, then another"] = kept(get("/same/error/exception")) + get("/same/get")
REQUESTS["an unread body, then another"] = kept(post("/same/read/nothing", b"b")) + get("/same/get")
REQUESTS["HTTP/1.0"] = get("/same/get", version="1.0")
REQUESTS["HTTP/1.0 without a host"] = b"GET /same/get HTTP/1.0\r\n\r\n"
REQUESTS["no host"] = b"GET /same/get HTTP/1.1\r\nConnection: close\r\n\r\n"
REQUESTS["no HTTP"] = b"nonsense\r\n\r\n"
REQUESTS["HTTP/2.0"] = get("/same/get", version="2.0")
REQUESTS["a length that is no number"] = get("/same/read/bounded", "Content-Length: x")
REQUESTS["a length and chunks"] = chunked("/same/read/bounded", b"x", headers=["Content-Length: 1"])

# What the client does not end: malformed, and cut short.
for how in ("bounded", "stream", "lines", "readline", "readlines", "pieces", "media", "env"):
    path, kind_of_body = f"/same/read/{how}", [JSON] if how == "media" else []
    REQUESTS[f"cut {how}, length"] = post(path, b"[1,2]", *kind_of_body)[:-2]
    REQUESTS[f"cut {how}, nothing came"] = post(path, b"[1,2]", *kind_of_body)[:-5]
    REQUESTS[f"cut {how}, chunks"] = chunked(path, b"[1,2]", end=b"", headers=headers)
    REQUESTS[f"cut {how}, within a chunk"] = chunked(path, end=b"9\r\n[1", headers=headers)
    REQUESTS[f"malformed {how}, size"] = chunked(path, b"[1", end=b"zz\r\n]\r\n", headers=headers)
    REQUESTS[f"malformed {how}, end"] = chunked(path, end=b"3\r\n[1]xx0\r\n\r\n", headers=headers)
REQUESTS["malformed twice, size"] = chunked("/same/read/twice", b"a", end=b"zz\r\n")

BAD = {
    "text": "a str as its body, expected bytes",
    "bytearray": "a bytearray as its body, expected bytes",
    "memoryview": "a memoryview as its body, expected bytes",
    "number": "a int as its body, expected bytes",
    "list": "a list as its body, expected bytes",
    "header-break": "a header x-bad that holds a line break",
    "header-unicode": "a header x-bad that holds",
    "header-name": "the header name 'x bad', expected a token",
    "header-appended": "a header x-bad that holds",
    "cookie": "a header set-cookie that holds",
    "error-header": "a header x-bad that holds",
    "status-line": "the status '200 OK\\r\\nX-Bad: yes', expected one like '200 OK'",
    "status": "the status 'fine', expected one like '200 OK'",
    "stream-text": "a str as resp.stream, expected a file or an iterable of bytes",
}
for kind in BAD:
    REQUESTS[f"cannot be sent: {kind}"] = get(f"/same/bad/{kind}")
    REQUESTS[f"cannot be sent: {kind}, HEAD"] = get(f"/same/bad/{kind}", method="HEAD")


# Where the answers differ on purpose: what the requests' names match, why, and what ours is then.
DIFFERENCES = {
    r"read (bounded|pieces|streamed|twice), chunked": (
        "Falcon's bounded_stream is empty for a chunked body; a webhook is signed by its bytes",
        200,
    ),
    r"media chunked": ("the same", 200),
    r"media multipart, chunked": ("Falcon asserts that a multipart form has a length", 200),
    r"media (or none )?surrogate": ("JSON can escape what UTF-8 cannot hold: no 500", 200),
    r"media (or none )?(too )?deep": (
        "nested deeper than can be walked by recursion is refused, before it is answered with 500",
        400,
    ),
    r"media (or none )?NaN": ("NaN, and what has no room as a number, is refused", 400),
    r"(cut|malformed) .*": ("a broken body is not handed over, and no plugin's fault", 400),
    r"cannot be sent: .*": ("what cannot be sent is one clean 500", 500),
    r"method HEAD of what has GET alone": ("HEAD is answered wherever GET is", 200),
}


@contextlib.contextmanager
def plain_falcon(log_file: Path) -> Iterator[int]:
    """Serve `plain_falcon.py` by a gunicorn of its own; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", os.devnull, "-k", "gthread"]
    command += [
        "-b",
        f"127.0.0.1:{port}",
        "--threads",
        "8",
        "--keep-alive",
        "15",
        "--no-control-socket",
    ]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*command, "tests.acceptance.plain_falcon:app"],
            cwd=CHECKOUT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def send(port: int, request: bytes) -> bytes:
    """Send bytes and nothing after them; return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with contextlib.suppress(OSError):  # who does not read all of a body may be gone already
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                found += part
    return found


class Message:
    """One answer, as it came over the wire, without what differs each time."""

    def __init__(self, raw: bytes) -> None:
        """Take the first answer of `raw`; `rest` is what follows it."""
        head, _, rest = raw.partition(b"\r\n\r\n")
        self.line, *lines = head.decode("latin-1").split("\r\n")
        # A cookie that is unset expires a second ago.
        lines = [re.sub(r"expires=[^;]+", "expires=…", line) for line in lines]
        self.headers = [line for line in lines if not line.startswith(("Date:", "Server:"))]
        lengths = re.findall(rb"(?im)^content-length: (\d+)", head)
        assert len(lengths) <= 1, raw
        if rest.startswith(b"HTTP/1."):  # no body, as after HEAD
            size = 0
        elif b"Transfer-Encoding: chunked" in head:
            end = rest.find(b"\r\n0\r\n\r\n")
            size = len(rest) if end < 0 else end + 7
        else:
            size = int(lengths[0]) if lengths else len(rest)
        self.body, self.rest = rest[:size], rest[size:]

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    def same_headers(self, *but: str) -> list[str]:
        """Return the headers, sorted, without some; HEAD is allowed wherever GET is."""
        found = []
        for line in self.headers:
            name, _, value = line.partition(": ")
            if name.lower() == "allow":
                value = ", ".join(sorted(set(value.split(", ")) - {"HEAD"}))
            if name.lower() not in but:
                found.append(f"{name.lower()}: {value}")
        return found


def messages(raw: bytes) -> list[Message]:
    found = []
    while raw:
        found.append(Message(raw))
        raw = found[-1].rest
    return found


def is_same(ours: Message, plain: Message) -> bool:
    return (ours.line, ours.same_headers(), ours.body) == (
        plain.line,
        plain.same_headers(),
        plain.body,
    )


def is_same_problem(ours: Message, plain: Message) -> bool:
    """Tell whether an error says the same, in RFC 9457's words and always as JSON."""
    framing = ("content-type", "content-length", "vary")
    if ours.line != plain.line or ours.status < 400:
        return False
    if ours.same_headers(*framing) != plain.same_headers(*framing):
        return False
    if not plain.body:  # HEAD, or an answer that could not be rendered
        return True
    if not any(line.startswith("content-type: application/json") for line in plain.headers):
        return False  # gunicorn's own page
    found, expected = json.loads(ours.body), json.loads(plain.body)
    if "content-type: application/problem+json" not in ours.headers:
        return bool(found == expected)
    assert found["status"] == ours.status
    title = expected.pop("title")
    same_title = found["title"] in (title, title.partition(" ")[2])
    if "description" in expected:
        expected["detail"] = expected.pop("description")
    return same_title and expected.items() <= found.items()


class Pair:
    """Both servers, and what each answered to every request."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        with ThreadPoolExecutor(4) as pool:
            self.ours = dict(zip(REQUESTS, pool.map(self.ask, REQUESTS.values()), strict=True))
            asked = pool.map(functools.partial(send, port), REQUESTS.values())
            self.plain = dict(zip(REQUESTS, asked, strict=True))

    def ask(self, request: bytes) -> bytes:
        """Ask Benana."""
        return send(self.server.port, request)


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("falcon")
    server = Server(home, new_database(), WEB_CONCURRENCY="1")
    server.write("same", Path(__file__).with_name("falcon_plugin.py").read_text())
    with plain_falcon(home / "plain.log") as port:
        try:
            server.start()
            wait_until(lambda: is_up(port), (home / "plain.log").read_text())
            yield Pair(server, port)
        finally:
            server.kill()


def is_up(port: int) -> bool:
    with contextlib.suppress(OSError):
        return b"200 OK" in send(port, get("/same/get"))
    return False


def differs(ours: list[Message], plain: list[Message], name: str) -> bool:
    """Tell whether two answers to a request differ, and not as `DIFFERENCES` says."""
    if len(ours) == len(plain):
        pairs = zip(ours, plain, strict=True)
        if all(is_same(a, b) or is_same_problem(a, b) for a, b in pairs):
            return False
    expected = [status for names, (_, status) in DIFFERENCES.items() if re.fullmatch(names, name)]
    return not expected or [message.status for message in ours] != expected


def test_every_request_is_answered_as_by_plain_falcon(pair: Pair) -> None:
    # One test for them all: several hundred would take a second more.
    wrong = {
        name: (pair.ours[name], pair.plain[name])
        for name in REQUESTS
        if differs(messages(pair.ours[name]), messages(pair.plain[name]), name)
    }
    assert not wrong


def test_every_listed_difference_is_one_of_a_request() -> None:
    for names in DIFFERENCES:
        assert any(re.fullmatch(names, name) for name in REQUESTS), names


@pytest.mark.parametrize("how", ["bounded", "pieces", "streamed", "twice"])
def test_a_chunked_body_is_read_like_one_with_a_length(pair: Pair, how: str) -> None:
    ours, plain = pair.ours[f"read {how}, chunked"], pair.plain[f"read {how}"]
    assert messages(ours)[0].body == messages(plain)[0].body


@pytest.mark.parametrize("kind", BAD)
def test_an_answer_that_cannot_be_sent_is_one_problem_and_named_in_the_log(
    pair: Pair, kind: str
) -> None:
    for name in (f"cannot be sent: {kind}", f"cannot be sent: {kind}, HEAD"):
        (answer,) = messages(pair.ours[name])
        assert answer.status == 500
        assert "content-type: application/problem+json" in answer.headers
    problem = json.loads(messages(pair.ours[f"cannot be sent: {kind}"])[0].body)
    assert "tried to end" not in problem["detail"]
    line = next(line for line in pair.server.log().splitlines() if problem["error_id"] in line)
    assert f"same: GET /same/bad/{kind} answered with {BAD[kind]}" in line


def test_what_would_end_the_worker_says_so(pair: Pair) -> None:
    (answer,) = messages(pair.ask(get("/same/bad/exit")))
    assert "tried to end the server" in json.loads(answer.body)["detail"]
    (answer,) = messages(pair.ask(get("/same/bad/exit", method="HEAD")))
    assert (answer.status, answer.body) == (500, b"")


@pytest.mark.parametrize("kind", ["status-100", "status-103", "status-199"])
def test_a_status_that_is_not_final_is_a_500_and_named_in_the_log(pair: Pair, kind: str) -> None:
    (answer,) = messages(pair.ask(get(f"/same/bad/{kind}")))
    assert answer.status == 500
    error_id = json.loads(answer.body)["error_id"]
    line = next(line for line in pair.server.log().splitlines() if error_id in line)
    assert f"same: GET /same/bad/{kind} answered with the status" in line
    assert "expected one like '200 OK', from 200 on" in line


def test_a_broken_body_is_blamed_on_nobody(pair: Pair) -> None:
    for name in (name for name in REQUESTS if name.startswith(("cut ", "malformed "))):
        (answer,) = messages(pair.ours[name])
        assert json.loads(answer.body)["title"] == "Broken body"
    log = pair.server.log()
    assert "same: POST /same/read/" not in log
    assert "dropping per RFC 9110" not in log, "no body is given to HEAD"
