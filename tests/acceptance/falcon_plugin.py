"""Falcon resources that a plain `falcon.App` and a Benana plugin serve from this one file."""

import datetime
import tempfile

import falcon
from falcon import hooks

from app.plugin import PluginMetadata

FILE = bytes(range(256)) * 400


class Statuses:
    def on_get(self, req, resp, code):
        resp.status = code
        resp.text = f"status {code}"

    def on_get_line(self, req, resp):
        resp.status = "299 Fine Indeed"
        resp.text = "line"

    def on_get_number(self, req, resp):
        resp.status = 207
        resp.text = "number"


class Bodies:
    def on_get(self, req, resp, kind):
        resp.content_type = "text/plain"
        if kind == "text":
            resp.text = "tëxt"
        elif kind == "bytes-as-text":
            resp.text = b"bytes"
        elif kind == "data":
            resp.data = b"\x00\xff"
        elif kind == "empty-data":
            resp.data = b""
        elif kind == "media":
            resp.content_type = falcon.MEDIA_JSON
            resp.media = {"ü": [1, 2.5, None]}
        elif kind == "media-without-type":
            resp.content_type = None
            resp.media = [1]
        elif kind == "form":
            resp.content_type = falcon.MEDIA_URLENCODED
            resp.media = {"a": "b c"}
        elif kind == "all":
            resp.text, resp.data, resp.media = "text", b"data", "media"
        elif kind == "subclass":
            resp.data = type("Bytes", (bytes,), {})(b"a subclass of bytes")
        elif kind == "no-content":
            resp.status = 204
            resp.text = "not sent"
        elif kind == "not-modified":
            resp.status = 304
            resp.etag = "v1"
        elif kind == "wrong-length":
            resp.content_length = 3
            resp.text = "five!"

    on_post = on_head = on_get

    def on_options(self, req, resp, kind):
        resp.set_header("Allow", "GET, OPTIONS")
        resp.text = "options"


class OnlyGet:
    def on_get(self, req, resp):
        resp.set_header("X-Got", "yes")
        resp.text = "got"


class Parts:
    def __init__(self, *parts):
        self.parts = list(parts)

    def __iter__(self):
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part


class Streams:
    def on_get(self, req, resp, kind):
        resp.content_type = "application/octet-stream"
        if kind == "generator":
            resp.stream = (part for part in (b"one ", b"", b"two"))
        elif kind == "list":
            resp.stream = [b"one ", b"two"]
        elif kind == "empty":
            resp.stream = []
        elif kind == "length":
            resp.set_stream(Parts(b"12345", b"67890"), 10)
        elif kind == "longer":
            resp.set_stream(Parts(b"12345", b"67890"), 7)
        elif kind == "raises":
            resp.stream = Parts(b"begun ", ValueError("midway"))
        elif kind == "raises-at-once":
            resp.stream = Parts(ValueError("at once"))
        elif kind == "raises-with-length":
            resp.set_stream(Parts(b"begun ", ValueError("midway")), 100)
        elif kind == "text-later":
            resp.stream = Parts(b"bytes ", "text")

    on_head = on_get


class Files:
    def on_get(self, req, resp):
        resp.content_type = "application/octet-stream"
        resp.accept_ranges = "bytes"
        resp.etag = "file"
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
        file.write(FILE)
        file.seek(0)
        wanted = req.range
        if wanted is None:
            resp.set_stream(file, len(FILE))
            return
        begin, end = wanted
        begin = begin + len(FILE) if begin < 0 else begin
        end = len(FILE) - 1 if end < 0 else min(end, len(FILE) - 1)
        if begin > end:
            raise falcon.HTTPRangeNotSatisfiable(len(FILE))
        file.seek(begin)
        resp.status = 206
        resp.content_range = (begin, end, len(FILE))
        resp.set_stream(file, end - begin + 1)

    on_head = on_get

    def on_get_unknown(self, req, resp):
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the server closes it
        file.write(FILE)
        file.seek(100)
        resp.stream = file

    def on_get_like(self, req, resp):
        class Like:
            left = 3

            def read(self, size):
                self.left -= 1
                return b"x" * size if self.left else b""

        resp.stream = Like()


class Headers:
    def on_get(self, req, resp):
        resp.set_header("X-One", 1)
        resp.set_header("x-one", "again")
        resp.append_header("X-Two", "a")
        resp.append_header("x-two", "b")
        resp.set_headers({"X-Three": "3", "x-four": "tab\there"})
        resp.append_link("/next", "next", title="Ü")
        resp.vary = ["Accept", "Cookie"]
        resp.etag = "tag"
        resp.cache_control = ["no-store", "max-age=0"]
        resp.last_modified = datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)  # noqa: UP017
        resp.expires = datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone.utc)  # noqa: UP017
        resp.downloadable_as = "Übersicht.csv"
        resp.retry_after = 5
        resp.location = "/ü?a=b c"
        resp.content_location = "/x"
        resp.set_header("X-Latin", "\xe9")
        resp.set_header("Connection", "close")
        resp.delete_header("X-Three")
        resp.text = "headers"

    def on_get_cookies(self, req, resp):
        resp.set_cookie("a", "b c;d", max_age=60, path="/x", http_only=True, same_site="Lax")
        resp.set_cookie("plain", "1", secure=False)
        resp.append_header("Set-Cookie", "raw=1; Path=/")
        resp.unset_cookie("old")
        resp.media = {name: req.get_cookie_values(name) for name in sorted(req.cookies)}


REDIRECTS = {
    "301": falcon.HTTPMovedPermanently,
    "302": falcon.HTTPFound,
    "303": falcon.HTTPSeeOther,
    "307": falcon.HTTPTemporaryRedirect,
    "308": falcon.HTTPPermanentRedirect,
}


class Redirects:
    def on_get(self, req, resp, code):
        raise REDIRECTS[code]("/elsewhere?ü", headers={"X-Why": "moved"})

    on_post = on_get


class Requests:
    """Says how a request looks from inside."""

    def on_get(self, req, resp):
        names = (
            "method path query_string host port scheme url relative_uri uri_template accept "
            "content_type content_length user_agent auth if_none_match range prefix forwarded_host "
            "remote_addr is_websocket"
        )
        found: dict[str, object] = {name: str(getattr(req, name)) for name in names.split()}
        found["params"] = req.params
        found["cookies"] = req.cookies
        found["headers"] = {k: v for k, v in req.headers_lower.items() if k != "host"}
        resp.media = found

    on_post = on_put = on_delete = on_patch = on_trace = on_get

    def on_get_number(self, req, resp):
        resp.media = req.get_param_as_int("n", required=True, min_value=1)


class Reader:
    """Reads a body in one of the ways there are."""

    def on_post(self, req, resp, how):
        if how == "media":
            resp.media = {"received": req.get_media()}
        elif how == "media-or-none":
            resp.media = {"received": req.get_media(default_when_empty=None)}
        elif how == "multipart":
            resp.media = [[part.name, part.filename, part.get_text()] for part in req.get_media()]
        elif how == "bounded":
            resp.data = req.bounded_stream.read()
        elif how == "stream":
            resp.data = req.stream.read()
        elif how == "pieces":
            pieces = iter(lambda: req.bounded_stream.read(3), b"")
            resp.media = [piece.decode() for piece in pieces]
        elif how == "lines":
            resp.media = [line.decode() for line in req.stream]
        elif how == "readline":
            resp.media = [req.stream.readline().decode() for _ in range(3)]
        elif how == "readlines":
            resp.media = [line.decode() for line in req.stream.readlines()]
        elif how == "twice":
            resp.media = [req.bounded_stream.read().decode(), req.bounded_stream.read().decode()]
        elif how == "env":
            resp.data = req.env["wsgi.input"].read()
        elif how == "nothing":
            resp.text = "not read"
        elif how == "streamed":
            resp.stream = iter(lambda: req.bounded_stream.read(4), b"")

    on_put = on_post


class OwnError(falcon.HTTPError):
    def to_dict(self, obj_type=dict):
        return {**super().to_dict(obj_type), "fields": {"name": "is missing"}}


class OwnJson(falcon.HTTPError):
    def to_json(self, handler=None):
        return b'{"mine":true}'


class Errors:
    def on_get(self, req, resp, kind):
        resp.set_header("X-Before", "kept")
        resp.text = "forgotten"
        if kind == "bad":
            raise falcon.HTTPBadRequest(title="Bad", description="Wörse", code=7, href="/help")
        if kind == "plain":
            raise falcon.HTTPNotFound
        if kind == "number":
            raise falcon.HTTPError(409)
        if kind == "line":
            raise falcon.HTTPError("499 Own Line", description="own")
        if kind == "unknown":
            raise falcon.HTTPError(799)
        if kind == "headers":
            raise falcon.HTTPError(falcon.HTTP_400, headers={"X-Error": "yes", "x-before": "no"})
        if kind == "unauthorized":
            raise falcon.HTTPUnauthorized(challenges=["Basic", "Bearer"])
        if kind == "not-allowed":
            raise falcon.HTTPMethodNotAllowed(["POST"])
        if kind == "unavailable":
            raise falcon.HTTPServiceUnavailable(retry_after=30)
        if kind == "status":
            raise falcon.HTTPStatus(202, headers={"X-Status": "yes"}, text="accepted")
        if kind == "own":
            raise OwnError(falcon.HTTP_422, title="Invalid")
        if kind == "own-json":
            raise OwnJson(falcon.HTTP_400)
        if kind == "exception":
            raise LookupError("secret")
        if kind == "renders-not":
            resp.text, resp.media = None, {1, 2}
        if kind == "renders-415":
            resp.text, resp.media, resp.content_type = None, 1, "application/x-unknown"
        if kind == "route":
            raise falcon.HTTPRouteNotFound

    on_head = on_get

    def on_post(self, req, resp, kind):
        raise falcon.HTTPContentTooLarge(description="unread")


def refuse(req, resp, resource, params, *args):
    if req.get_header("X-Refuse"):
        raise falcon.HTTPForbidden(description=f"refused, {sorted(params)}")
    params["added"] = "by hook"


def sign(req, resp, resource):
    resp.set_header("X-Signed", str(len(resp.text)))
    if req.get_header("X-Refuse-After"):
        raise falcon.HTTPGone


@hooks.before(refuse)
@hooks.after(sign)
class Hooked:
    def on_get(self, req, resp, name, added):
        resp.text = f"{name} {added}"

    on_post = on_get


class Fields:
    def on_get(self, req, resp, **fields):
        resp.media = {name: repr(value) for name, value in sorted(fields.items())}

    def on_get_other(self, req, resp, **fields):
        resp.media = {"other": sorted(fields)}

    def on_delete_other(self, req, resp, **fields):
        resp.status = falcon.HTTP_204


class Bad:
    """Answers that cannot be sent as they are."""

    def on_get(self, req, resp, kind):
        resp.text = "fine"
        resp.set_header("Content-Length", "4")
        if kind in ("text", "bytearray", "memoryview", "number", "list"):
            data = {"text": "text", "number": 5, "list": [b"x"]}
            resp.text, resp.data = None, data.get(kind) or bytearray(b"data")
            if kind == "memoryview":
                resp.data = memoryview(b"data")
        elif kind == "header-break":
            resp.set_header("X-Bad", "a\r\nSet-Cookie: b=c")
        elif kind == "header-unicode":
            resp.set_header("X-Bad", "☃")
        elif kind == "header-name":
            resp.set_header("X Bad", "a")
        elif kind == "header-appended":
            resp.append_header("X-Bad", "a\x00b")
        elif kind == "cookie":
            resp.set_cookie("a", "b", path="/\r\nX: y")
        elif kind == "error-header":
            raise falcon.HTTPBadRequest(headers={"X-Bad": "a\nb"})
        elif kind == "status-line":
            resp.status = "200 OK\r\nX-Bad: yes"
        elif kind == "status":
            resp.status = "fine"
        elif kind == "status-100":
            resp.status = falcon.HTTP_100
        elif kind in ("status-103", "status-199"):
            raise falcon.HTTPStatus(int(kind[-3:]))
        elif kind == "stream-text":
            resp.text, resp.stream = None, "text"
        elif kind == "exit":
            raise SystemExit(3)

    on_head = on_get


class Plugin:
    def initialize(self, context): ...

    def get_metadata(self):
        return PluginMetadata("same", "1.0.0")

    def cleanup(self, context): ...

    def register_routes(self, server):
        server.add_route("/same/status/{code:int}", Statuses())
        server.add_route("/same/status-line", Statuses(), suffix="line")
        server.add_route("/same/status-number", Statuses(), suffix="number")
        server.add_route("/same/body/{kind}", Bodies())
        server.add_route("/same/get", OnlyGet())
        server.add_route("/same/stream/{kind}", Streams())
        server.add_route("/same/file", Files())
        server.add_route("/same/file-unknown", Files(), suffix="unknown")
        server.add_route("/same/file-like", Files(), suffix="like")
        server.add_route("/same/headers", Headers())
        server.add_route("/same/cookies", Headers(), suffix="cookies")
        server.add_route("/same/redirect/{code}", Redirects())
        server.add_route("/same/request", Requests())
        server.add_route("/same/request-number", Requests(), suffix="number")
        server.add_route("/same/read/{how}", Reader())
        server.add_route("/same/error/{kind}", Errors())
        server.add_route("/same/hook/{name}", Hooked())
        server.add_route("/same/field/int/{n:int}", Fields())
        server.add_route("/same/field/int2/{n:int(2, min=10)}", Fields())
        server.add_route("/same/field/float/{n:float}", Fields())
        server.add_route("/same/field/uuid/{n:uuid}", Fields())
        server.add_route("/same/field/dt/{n:dt}", Fields())
        server.add_route("/same/field/path/{n:path}", Fields())
        server.add_route("/same/field/two/{a}-{b}.{c}", Fields())
        server.add_route("/same/field/{a}/{b}", Fields())
        server.add_route("/same/field/{a}/{b}/other", Fields(), suffix="other")
        server.add_route("/same/bad/{kind}", Bad())


new_plugin = Plugin
