"""Whose calls a plugin answers: pages, names, proxies."""

import functools
import io
import json
import zipfile
from dataclasses import replace
from ipaddress import ip_network

import pytest

from app.loading.callers import Surroundings, is_own_origin, parse_host, parse_origin
from app.loading.context import make_context_factory
from app.loading.loader import LoadedPlugin, load
from tests.support.plugins import artifact_of, no_database, plugin_text, sha256
from tests.support.wsgi import call

PLUGIN = plugin_text(
    """
    def get(self):
        return self.written

    def post(self, body):
        self.written.append(body)
        return {"written": body}
    """,
    top="""
    class Resource:
        def on_get(self, req, resp, field):
            resp.text = field

        def on_options(self, req, resp, field):
            resp.set_header("Access-Control-Allow-Origin", "*")
    """,
    initialize="self.written = []",
    register_routes="""
    server.get('/sample', self.get)
    server.post('/sample', self.post)
    server.add_route('/sample/{field}', Resource())
    """,
)


@pytest.fixture(scope="module")
def loaded_plugin(tmp_path_factory):
    """Gives the plugin with a manifest, on a server with names and proxies; loaded once each."""
    make_context = make_context_factory(tmp_path_factory.mktemp("data"), lambda _: no_database)

    @functools.cache
    def give(surroundings: Surroundings | None, **manifest) -> LoadedPlugin:
        artifact = artifact_of({"main.py": PLUGIN}, **manifest)
        return load(artifact, make_context, surroundings=surroundings)

    return give


OWN = {"HTTP_HOST": "127.0.0.1:9999", "REMOTE_ADDR": "192.0.2.1"}
FOREIGN = "https://evil.example"
LINK = {"HTTP_SEC_FETCH_MODE": "navigate", "HTTP_SEC_FETCH_DEST": "document"}


def h(**headers: str) -> dict[str, str]:
    return {f"HTTP_{name.upper()}": value for name, value in headers.items()}


@pytest.fixture
def serve(app, loaded_plugin):
    """Serve it, and nothing that it was told before."""

    def make(surroundings: Surroundings | None = None, **manifest):
        loaded = loaded_plugin(surroundings, **manifest)
        loaded.instance.written.clear()
        builder = app.table.builder()
        builder.remove("sample")
        builder.add("sample", loaded.routes)
        app.swap(builder.build())

        def ask(method: str = "GET", path: str = "/sample", **environ):
            return call(app, path, method, **{**OWN, **environ})

        return ask

    return make


# --- what counts as one's own page ----------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://127.0.0.1:9999", "127.0.0.1:9999", "http"),
        ("http://x", "x", "http"),
        ("http://x:80", "x", "http"),
        ("http://x", "x:80", "http"),
        ("https://x:443", "x", "https"),
        ("https://x", "x:443", "https"),
        ("https://x", "x", "http"),  # a proxy took TLS off
        ("https://x", "x:443", "http"),
        ("https://x:8443", "x:8443", "http"),
        ("HTTPS://App.Example", "aPP.example", "https"),
        ("http://x.", "x", "http"),
        ("http://x", "x.:80", "http"),
        ("http://[::1]:9999", "[::1]:9999", "http"),
        ("http://[2001:DB8::1]", "[2001:db8::1]", "http"),
    ],
)
def test_an_own_page_is_known(origin, host, scheme):
    found = parse_origin(origin)
    assert found is not None
    assert is_own_origin(found, host, scheme)


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://y", "x", "http"),
        ("http://x:8080", "x", "http"),
        ("http://x", "x:8080", "http"),
        ("https://x", "x:80", "http"),
        ("http://x", "x:443", "http"),
        ("http://x", "x", "https"),  # who can change a page without TLS is not let in with it
        ("http://x.evil.example", "x", "http"),
        ("http://evilx", "x", "http"),
        ("http://[::1]:9999", "127.0.0.1:9999", "http"),
        ("chrome-extension://x", "x", "http"),
        ("file://x", "x", "http"),
        ("http://x", "", "http"),
        ("http://x", "x/", "http"),
        ("http://x", "y@x", "http"),
        ("http://x", "x, x", "http"),
    ],
)
def test_a_foreign_page_is_known(origin, host, scheme):
    found = parse_origin(origin)
    assert found is not None
    assert not is_own_origin(found, host, scheme)


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "x", "//x", "http://", "http:///", "http://.", "1http://x", " http://x"),
        *("http://x/", "http://x/y", "http://x?q", "http://x#f", "http://u@x", "http://u:p@x"),
        *("http://x:0", "http://x:65536", "http://x:123456", "http://x:y", "http://x\n"),
        *("http://a, http://b", "http://a,http://b", "http://a http://b", "http://a\tb"),
        *("http://[::1", "http://::1", "http://[x]", "http://a\\b"),
    ],
)
def test_what_is_no_origin_is_none(text):
    assert parse_origin(text) is None


@pytest.mark.parametrize("text", ["", ":80", "x:y", "x y", "[::1", "::1", "x:0", "a,b", "a@b", "."])
def test_what_is_no_host_is_none(text):
    assert parse_host(text) is None


# --- pages ----------------------------------------------------------------------------------

REFUSED = [
    h(origin=FOREIGN),
    h(origin="null"),
    h(origin=""),
    h(origin="garbage"),
    h(origin="http://127.0.0.1"),
    h(origin="http://127.0.0.1:9998"),
    h(origin="http://localhost:9999"),
    h(origin="chrome-extension://127.0.0.1:9999"),
    h(origin=FOREIGN, sec_fetch_site="cross-site"),
    h(origin=FOREIGN, sec_fetch_site="same-site"),
    h(origin="http://127.0.0.1:9999", sec_fetch_site="cross-site"),
    h(sec_fetch_site="cross-site"),
    h(sec_fetch_site="same-site"),
    h(sec_fetch_site="cross-site", sec_fetch_mode="no-cors", sec_fetch_dest="image"),
    h(sec_fetch_site="cross-site", sec_fetch_mode="no-cors", sec_fetch_dest="script"),
    h(sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="iframe"),
    h(sec_fetch_site="nonsense"),
]
PASSED = [
    {},  # curl
    h(origin="http://127.0.0.1:9999"),
    h(origin="https://127.0.0.1:9999"),  # a proxy took TLS off
    h(origin="http://127.0.0.1:9999", sec_fetch_site="same-origin"),
    h(sec_fetch_site="same-origin"),
    h(sec_fetch_site="none"),
    h(origin="null", sec_fetch_site="same-origin"),  # Referrer-Policy: no-referrer
    # A proxy that rewrites the Host: the browser knows better than we do.
    h(origin="https://app.example.com", sec_fetch_site="same-origin"),
]


@pytest.mark.parametrize("headers", REFUSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_call_of_a_foreign_page_is_refused_before_the_handler(serve, method, headers):
    ask = serve(origins=())
    answer = ask(method, CONTENT_TYPE="text/plain", **headers)
    assert answer.status == 403
    problem = json.loads(answer.read())
    assert "'origins'" in problem["detail"]
    assert "'sample'" in problem["detail"]
    assert json.loads(ask().read()) == []


@pytest.mark.parametrize("headers", PASSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_call_of_ones_own_pages_or_of_no_page_passes(serve, method, headers):
    assert serve(origins=())(method, **headers).status in {200, 422}


def test_a_plugin_that_says_nothing_is_open_as_in_falcon(serve):
    ask = serve()
    for headers in (*REFUSED, *PASSED, h(host="evil.example"), h(host="")):
        assert ask(**headers).status == 200


def test_a_link_on_a_foreign_page_can_be_followed_and_nothing_else(serve):
    ask = serve(origins=())
    there = h(sec_fetch_site="cross-site") | LINK
    assert ask("GET", **there).status == 200
    assert ask("POST", **there).status == 403
    assert ask("DELETE", "/sample/x", **there).status == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/sample/x"), ("OPTIONS", "/sample/x"), ("OPTIONS", "/sample"), ("PUT", "/sample")],
)
def test_every_answer_of_the_plugin_is_behind_the_check(serve, method, path):
    """A resource of Falcon's, its own `on_options`, and what Falcon answers for it."""
    ask = serve(origins=())
    answer = ask(method, path, **h(origin=FOREIGN))
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers
    assert ask(method, path).status == (405 if method == "PUT" else 200)


def test_a_path_that_is_not_the_plugins_is_not_found(serve):
    assert serve(origins=())("GET", "/other", **h(origin=FOREIGN)).status == 404


def test_origins_that_are_listed_may_call_too(serve):
    ask = serve(origins=("https://app.example.com", "capacitor://localhost"))
    for origin in ("https://app.example.com", "https://APP.example.com:443"):
        for site in ({}, h(sec_fetch_site="cross-site"), h(sec_fetch_site="same-site")):
            assert ask(**h(origin=origin), **site).status == 200
    assert ask(**h(origin="capacitor://localhost")).status == 200
    assert ask(**h(origin="http://127.0.0.1:9999")).status == 200
    for origin in ("http://app.example.com", "https://app.example.com:8443", FOREIGN, "null"):
        assert ask(**h(origin=origin)).status == 403


# --- names ----------------------------------------------------------------------------------

HERE = Surroundings(hosts=frozenset({"localhost", "known.example"}))


@pytest.mark.parametrize("manifest", [{"origins": ()}, {"hosts": ("app.example",)}])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9999", 200),
        ("localhost.", 200),
        ("known.example:8443", 200),
        ("192.0.2.7", 200),
        ("[::1]:9999", 200),
        ("evil.example", 403),
        ("evil.example:9999", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("known.example.evil.example", 403),
        ("", 400),
        ("a,b", 400),
        ("localhost/x", 400),
    ],
)
def test_the_name_of_a_foreign_page_that_points_here_is_refused(serve, manifest, host, status):
    """DNS rebinding: Host and Origin are one, and the browser finds nothing wrong."""
    answer = serve(HERE, **manifest)(HTTP_HOST=host, HTTP_ORIGIN=f"http://{host}")
    if status == 200 or "origins" in manifest:
        assert answer.status == status
    if answer.status == 403:
        problem = json.loads(answer.read())
        assert "'hosts'" in problem["detail"]
        assert "BENANA_ADMIN_HOSTS" in problem["detail"]


def test_a_name_that_the_plugin_lists_is_let_in(serve):
    for manifest in (
        {"hosts": ("app.example.com",)},
        {"hosts": ("app.example.com",), "origins": ()},
    ):
        ask = serve(HERE, **manifest)
        assert ask(HTTP_HOST="App.Example.com:8443").status == 200
        assert ask(HTTP_HOST="other.example.com").status == 403


def test_hosts_alone_ask_for_no_origin(serve):
    assert serve(HERE, hosts=())(HTTP_HOST="localhost", HTTP_ORIGIN=FOREIGN).status == 200


# --- proxies --------------------------------------------------------------------------------

PROXY = {"REMOTE_ADDR": "10.0.0.7"}
BEHIND = Surroundings(
    frozenset({"localhost", "app.example.com"}), (ip_network("10.0.0.0/8"), ip_network("::1"))
)
PAGE = "https://app.example.com"


@pytest.mark.parametrize(
    "said",
    [
        h(x_forwarded_host="app.example.com"),
        h(x_forwarded_host="APP.example.com:443"),
        h(x_forwarded_host="app.example.com, localhost"),
        h(forwarded='for=192.0.2.1;host=app.example.com;proto="https"'),
        h(forwarded='for=192.0.2.1, for=192.0.2.2;host="app.example.com:443"'),
    ],
)
@pytest.mark.parametrize("peer", ["10.0.0.7", "::ffff:10.0.0.7", "::1", ""])
def test_a_trusted_proxy_tells_by_which_name_it_was_called(serve, said, peer):
    """An empty address is that of a unix socket."""
    ask = serve(BEHIND, origins=())
    assert ask(REMOTE_ADDR=peer, HTTP_ORIGIN=PAGE, **said).status == 200
    assert ask(REMOTE_ADDR=peer, HTTP_ORIGIN=FOREIGN, **said).status == 403


@pytest.mark.parametrize("peer", ["192.0.2.9", "11.0.0.1", "unknown", "::2"])
def test_others_can_say_what_they_like(serve, peer):
    ask = serve(BEHIND, origins=())
    said = h(x_forwarded_host="app.example.com", forwarded="host=app.example.com")
    assert ask(REMOTE_ADDR=peer, HTTP_ORIGIN=PAGE, **said).status == 403
    assert ask(REMOTE_ADDR=peer, **said).status == 200


def test_what_a_proxy_says_comes_beside_the_host_and_never_instead(serve):
    """A page whose name points here can send such headers, from an address that is trusted."""
    ask = serve(BEHIND, origins=())
    rebound = {"HTTP_HOST": "evil.example", "HTTP_ORIGIN": "http://evil.example"}
    assert ask(**PROXY, **rebound, **h(x_forwarded_host="localhost")).status == 403
    assert ask(**PROXY, **h(x_forwarded_host="localhost, evil.example")).status == 403
    assert ask(**PROXY, **h(x_forwarded_host="evil.example")).status == 403
    assert ask(**PROXY, **h(x_forwarded_host="[", forwarded="host=[")).status == 400


def test_a_proxy_that_says_nothing_of_the_host_is_told_what_to_do(serve):
    answer = serve(BEHIND, origins=())(**PROXY, **h(origin="http://app.example.com"))
    assert answer.status == 403
    assert "behind a proxy, let it pass the Host header on" in json.loads(answer.read())["detail"]


# --- where it is put ------------------------------------------------------------------------


def test_a_plugin_that_says_nothing_keeps_its_responders(load_plugin):
    """Nothing stands on its request path."""
    open_one = load_plugin({"main.py": plugin_text()})
    asked = load_plugin({"main.py": plugin_text()}, origins=())
    assert "CallerCheck" not in open_one.routes[0].methods["GET"].__qualname__
    assert all("CallerCheck" in made.__qualname__ for made in asked.routes[0].methods.values())
    assert asked.routes[0].endpoints == open_one.routes[0].endpoints


def test_an_archive_of_before_these_keys_is_open(load_plugin):
    made = artifact_of({"main.py": plugin_text()})
    with zipfile.ZipFile(io.BytesIO(made.archive)) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    meta = json.loads(files[".benana.json"])
    del meta["origins"], meta["hosts"]
    files[".benana.json"] = json.dumps(meta).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    old = replace(made, archive=buffer.getvalue(), sha256=sha256(buffer.getvalue()))
    loaded = load_plugin(old)
    assert "CallerCheck" not in loaded.routes[0].methods["GET"].__qualname__
