"""A request's body: read to its end by whichever way, or refused."""

import io

import falcon
import pytest
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import IterUnreader

from app.loading.strict_json import MAX_JSON_LEVELS, parse_json, to_utf8
from app.routing.bodies import RequestBody

TEXT = b"one\ntwo\nthree"


class Input(io.BytesIO):
    """An input that gives a few bytes at a time, as a socket may."""

    def read(self, size=-1):
        return super().read(min(size, 4) if size >= 0 else 4)


def length_reader(raw, length):
    return Body(LengthReader(IterUnreader([raw]), length))


def chunked_reader(raw):
    return Body(ChunkedReader(None, IterUnreader([raw])))


def chunks(*parts):
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


SOURCES = {
    "gunicorn, length": lambda: RequestBody(length_reader(TEXT + b"next", len(TEXT)), len(TEXT)),
    "gunicorn, chunked": lambda: RequestBody(
        chunked_reader(chunks(b"one\nt", b"wo\nthree") + b"0\r\n\r\nnext"), None
    ),
    "bytes, length": lambda: RequestBody(io.BytesIO(TEXT + b"next"), len(TEXT)),
    "bytes, ended": lambda: RequestBody(io.BytesIO(TEXT), None),
    "pieces, length": lambda: RequestBody(Input(TEXT), len(TEXT)),
    "pieces, ended": lambda: RequestBody(Input(TEXT), None),
}

READS = {
    "read": lambda body: [body.read(), body.read()] == [TEXT, b""],
    "read None": lambda body: body.read(None) == TEXT,
    "read by pieces": lambda body: b"".join(iter(lambda: body.read(3), b"")) == TEXT,
    "read too much": lambda body: body.read(1000) == TEXT,
    "read nothing": lambda body: (body.read(0), body.read()) == (b"", TEXT),
    "readline": lambda body: [body.readline() for _ in range(4)] == [*TEXT.splitlines(True), b""],
    "readline with a size": lambda body: (
        [body.readline(2) for _ in range(3)] == [b"on", b"e\n", b"tw"]
    ),
    "readlines": lambda body: body.readlines() == TEXT.splitlines(True),
    "iteration": lambda body: list(body) == TEXT.splitlines(True),
    "line, then the rest": lambda body: (body.readline(), body.read()) == (b"one\n", TEXT[4:]),
    "as text": lambda body: io.TextIOWrapper(body).read() == TEXT.decode(),
    "exhaust": lambda body: body.exhaust() is None and body.eof and body.read() == b"",
    "readable": lambda body: body.readable() and not body.seekable() and not body.eof,
}


@pytest.mark.parametrize("read", READS)
def test_a_whole_body_is_read_to_its_end_and_no_further(read):
    assert {name: READS[read](source()) for name, source in SOURCES.items()} == dict.fromkeys(
        SOURCES, True
    )


BROKEN = {
    "cut, length": lambda: RequestBody(length_reader(b"one\ntw", 10), 10),
    "cut, pieces": lambda: RequestBody(Input(b"one\ntw"), 10),
    "nothing came": lambda: RequestBody(length_reader(b"", 10), 10),
    "cut, chunks": lambda: RequestBody(chunked_reader(chunks(b"one\ntw")), None),
    "cut, within a chunk": lambda: RequestBody(chunked_reader(b"9\r\none"), None),
    "no size": lambda: RequestBody(chunked_reader(b"zz\r\none"), None),
    "no end of a chunk": lambda: RequestBody(chunked_reader(b"3\r\nonexx0\r\n\r\n"), None),
    "a bad trailer": lambda: RequestBody(chunked_reader(b"0\r\na\nb\r\n"), None),
    "a bad extension": lambda: RequestBody(chunked_reader(b"1;\r=\r\na\r\n0\r\n\r\n"), None),
}


@pytest.mark.parametrize("source", BROKEN)
def test_a_broken_body_is_a_400_at_every_try(source):
    for read in (RequestBody.read, list, RequestBody.readlines):
        body = BROKEN[source]()
        for _ in range(3):
            with pytest.raises(falcon.HTTPBadRequest):
                read(body)


def test_a_lost_connection_is_a_400():
    class Reset(io.BytesIO):
        def read(self, size=-1):
            raise ConnectionResetError

    with pytest.raises(falcon.HTTPBadRequest) as caught:
        RequestBody(Reset(), 5).read()
    assert "ended before" in caught.value.description


def test_a_fault_of_the_inputs_own_is_not_hidden():
    class Faulty(io.BytesIO):
        def read(self, size=-1):
            raise LookupError

    with pytest.raises(LookupError):
        RequestBody(Faulty(), 5).read()


@pytest.mark.parametrize("levels", [1, MAX_JSON_LEVELS])
def test_json_is_as_deep_as_can_be_used(levels):
    assert isinstance(parse_json(b"[" * levels + b"]" * levels), list)
    deep = b'[{"a":' * (levels // 2) + b"1" + b"}]" * (levels // 2)
    assert parse_json(deep)


@pytest.mark.parametrize("levels", [MAX_JSON_LEVELS + 1, 989, 100_000])
def test_json_that_is_nested_too_deep_is_refused(levels):
    for left, right in ((b"[", b"]"), (b'{"a":', b"}"), (b"[[],", b"]")):
        with pytest.raises(ValueError, match="deeper than 200 levels"):
            parse_json(left * levels + b"[]" + right * levels)


def test_a_lone_surrogate_is_escaped():
    assert to_utf8('"\ud800ü"') == '"\\ud800ü"'.encode()
