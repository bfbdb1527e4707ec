"""The route table: it finds what plain Falcon finds, and a published one never changes."""

import contextlib
import copy
import io
import itertools
import re
import string

import falcon
import falcon.testing
import pytest
from falcon.routing import CompiledRouter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.errors import ConflictError, LoadError
from app.loading.registration import RouteCollector
from app.loading.routes import SERVER, Route
from app.loading.segment_router import template_fault
from app.routing.application import LiveApp
from app.routing.conflicts import find_conflict
from app.routing.server_routes import RESERVED_SEGMENTS
from app.routing.table import RouteTable
from app.uri_templates import FIELD_PATTERN
from tests.support.wsgi import call, json_of, put, resource


class Thing:
    """A resource that says which it is."""

    def __init__(self, name="thing"):
        self.name = name

    def on_get(self, req, resp, **fields):
        resp.media = {"name": self.name, "fields": {k: str(v) for k, v in fields.items()}}

    def on_post_item(self, req, resp, **fields):
        resp.media = {"item": self.name}

    def __repr__(self):
        return f"<{self.name}>"


def routes(owner, *templates, **options):
    return tuple(Route(owner, t, Thing(f"{owner}{t}"), **options) for t in templates)


def table_of(before=None, /, **owned):
    builder = (before or RouteTable.empty()).builder()
    for owner, templates in owned.items():
        builder.add(owner, routes(owner, *templates))
    return builder.build()


def find(table, path):
    """Find a path as the application does: exactly first, then by search."""
    app = LiveApp()
    app.swap(table)
    app.running.slot()
    request = falcon.Request(falcon.testing.create_environ("/"))
    request.path = path
    _, fields, resource, template = app._get_responder(request)
    return None if resource is None else (resource, fields, template)


def owner_of(table, template):
    """Return who owns a template, None if nobody does."""
    owned = table.owned.items()
    return next((o for o, theirs in owned if template in {r.template for r in theirs}), None)


def plain_find(router, path):
    found = router.find(path)
    return None if found is None or found[0] is None else (found[0], found[2], found[3])


def conflict(builder, owner, *templates) -> ConflictError:
    with pytest.raises(ConflictError) as caught:
        builder.add(owner, routes(owner, *templates))
    assert caught.value.plugin == owner
    assert caught.value.phase == "register_routes"
    return caught.value


# --- plain examples ------------------------------------------------------------------------


def test_an_empty_table_finds_nothing():
    for path in ("/", "", "/a", "//", "/a/b/"):
        assert find(RouteTable.empty(), path) is None


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/", "/"),
        ("/", ""),
        ("/", "//"),
        ("/a", "/a"),
        ("/a", "//a"),
        ("//a", "/a"),
        ("/a/", "/a/"),
        ("/a//b", "/a//b"),
        ("/a/b", "///a/b"),
        ("/ü", "/ü"),
        ("/a.b", "/a.b"),
        ("/A", "/A"),
    ],
)
def test_a_template_without_fields_is_found(template, path):
    table = table_of(one=[template])
    found = find(table, path)
    assert found is not None
    assert found[1:] == ({}, template)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/", "/a"),
        ("/a", "/a/"),
        ("/a/", "/a"),
        ("/a", "/A"),
        ("/a", "/a/b"),
        ("/a/b", "/a"),
        ("/a//b", "/a/b"),
        ("/a", "/"),
        ("/{x}", "/a/b"),
        ("/a/{x}", "/a"),
        ("/{x:int}", "/a"),
        ("/a.b", "/axb"),
        ("/{x}.b", "/axb"),
    ],
)
def test_another_path_is_not_found(template, path):
    assert find(table_of(one=[template]), path) is None


def test_fields_are_given_anew_to_each_request():
    table = table_of(one=["/a", "/b/{x}"])
    for path in ("/a", "/b/1"):
        first = find(table, path)[1]
        first["intruder"] = 1
        assert "intruder" not in find(table, path)[1]


def test_a_literal_is_found_before_a_field_whoever_owns_it():
    table = table_of(one=["/{x}", "/a/{y}"], two=["/a", "/a/b"], three=["/{x}/{z}"])
    assert find(table, "/a")[2] == "/a"
    assert find(table, "/b")[1:] == ({"x": "b"}, "/{x}")
    assert find(table, "/a/b")[2] == "/a/b"
    assert find(table, "/a/c")[2] == "/a/{y}"
    assert find(table, "/b/c")[1:] == ({"x": "b", "z": "c"}, "/{x}/{z}")


def test_a_path_that_fails_below_its_literal_falls_back_to_the_fields():
    table = table_of(one=["/a/{n:int}"], two=["/{x}/{y}"])
    assert find(table, "/a/1")[2] == "/a/{n:int}"
    assert find(table, "/a/b")[1:] == ({"x": "a", "y": "b"}, "/{x}/{y}")


def test_an_owner_can_be_asked_for():
    table = table_of(one=["/a", "/b/{x}"], two=["/{y}"])
    assert [owner_of(table, t) for t in ("/a", "/b/{x}", "/{y}", "/c", None)] == [
        "one",
        "one",
        "two",
        None,
        None,
    ]


def test_a_suffix_leads_to_the_suffixed_responders(app):
    builder = app.table.builder()
    builder.add("one", routes("one", "/a", "/b/{x}", suffix="item"))
    app.swap(builder.build())
    for path in ("/a", "/b/1"):
        assert call(app, path, "POST").status == 200
        assert call(app, path).status == 405


# --- conflicts -----------------------------------------------------------------------------


def test_a_conflict_names_both_owners_and_the_template():
    message = conflict(table_of(one=["/a/{x}"]).builder(), "two", "/b", "/a/{x}").message
    for part in ("'one'", "'two'", "/a/{x}"):
        assert part in message


def test_a_template_that_excludes_another_names_both_templates_and_owners():
    message = conflict(table_of(one=["/a/{x}"]).builder(), "two", "/a/{y}/b").message
    for part in ("'one'", "'two'", "/a/{x}", "/a/{y}/b"):
        assert part in message


def test_a_conflict_with_the_server_names_the_server():
    message = conflict(table_of(**{SERVER: ["/about"]}).builder(), "two", "/about").message
    assert SERVER in message
    assert "'two'" in message


@pytest.mark.parametrize("segment", sorted(RESERVED_SEGMENTS))
@pytest.mark.parametrize("rest", ["", "/", "/x", "/{x}"])
def test_a_reserved_segment_is_the_servers_even_where_it_routes_nothing(segment, rest):
    for slashes in ("/", "//"):
        error = conflict(RouteTable.empty().builder(), "two", f"{slashes}{segment}{rest}")
        assert SERVER in error.message


def test_all_reserved_templates_are_named_at_once():
    message = conflict(RouteTable.empty().builder(), "two", "/health", "/x", "/ui/a").message
    assert "/health" in message
    assert "/ui/a" in message


@pytest.mark.parametrize("template", ["/healthy", "/plugin", "/a/plugins", "/uix", "/{plugins}"])
def test_a_segment_that_only_resembles_a_reserved_one_is_free(template):
    assert find(table_of(one=[template]), template.replace("{plugins}", "z"))


def test_the_server_itself_may_route_its_segments():
    assert find(table_of(**{SERVER: ["/plugins/{name}", "/health"]}), "/plugins/x")


def test_a_fields_first_plugin_cannot_shadow_the_servers_routes():
    table = table_of(**{SERVER: ["/plugins", "/plugins/{name}"]}, evil=["/{x}", "/{x}/{y}"])
    assert find(table, "/plugins")[0].name == SERVER + "/plugins"
    assert find(table, "/plugins/x")[0].name == SERVER + "/plugins/{name}"
    assert find(table, "//plugins")[0].name == SERVER + "/plugins"


@pytest.mark.parametrize(
    "pair",
    [
        ("/a", "/a"),
        ("/a", "//a"),
        ("/{x}", "/{x}"),
        ("/{x}", "/{y}"),
        ("/a/{x}", "/a/{y}/b"),
        ("/{x}-{y}", "/{a}-{b}"),
        ("/{x:int}", "/{x}"),
        ("/a/{x:path}", "/a/{x:path}/b"),
        ("/a/{x:path}", "/a/{y}"),
    ],
)
def test_two_routes_of_one_batch_that_exclude_each_other_are_refused(pair):
    error = conflict(RouteTable.empty().builder(), "one", *pair)
    assert pair[1] in error.message


@pytest.mark.parametrize(
    ("pair", "advice"),
    [
        (("/a/{x}", "/a/{y}"), "; expected the same names of fields in {x} and {y}"),
        (("/a/{x}/b", "/a/{y}/{z}"), "; expected the same names of fields in {x} and {y}"),
        (("/{x:int}-{y}", "/{y:int}-{x}"), "; expected the same names of fields in {x:int}-{y} "),
        (("/{x:int(2)}", "/{y}"), ""),
        (("/a/{x:path}", "/a/{y}"), ""),
    ],
)
def test_routes_that_name_one_field_otherwise_are_told_so(pair, advice):
    found = conflict(RouteTable.empty().builder(), "one", *pair).message
    said = f"the routes {pair[0]} and {pair[1]} exclude each other{advice}"
    assert said in found if advice else found == said


@pytest.mark.parametrize(
    "template",
    [
        "/a/{1x}",
        "/a/{x}/{x}",
        "/a/{class}",
        "/a/{x:int(num_digits=0)}",
        "/a/{x:path}/b",
        "/a/{x:path}-b",
        "/a/{}",
        "/a/{x:}",
        "/a/{x}{x}",
        "/a b/{x}",
        "/a\t/{x}",
    ],
)
def test_a_template_that_falcon_refuses_is_refused_by_name(template):
    with pytest.raises(ValueError):
        CompiledRouter().add_route(template, Thing())
    assert template in conflict(RouteTable.empty().builder(), "one", "/ok/{y}", template).message


@pytest.mark.parametrize("template", ["/a b", "/a\tb", "/a\nb", "/ "])
def test_a_template_without_fields_that_falcon_refuses_is_refused_too(template):
    with pytest.raises(ValueError):
        CompiledRouter().add_route(template, Thing())
    conflict(RouteTable.empty().builder(), "one", template)


def test_a_refused_literal_of_one_owner_never_fails_another():
    builder = RouteTable.empty().builder()
    with contextlib.suppress(ConflictError):
        builder.add("one", routes("one", "/a/b c"))
    builder.add("two", routes("two", "/a/{x}"))
    assert find(builder.build(), "/a/1")[0].name == "two/a/{x}"


@pytest.mark.parametrize("template", ["/it's/{x}", "/x/it's/{y}", "/a\\/{x}", "/a/b'/{c}"])
def test_a_template_that_falcon_cannot_compile_is_refused_or_found_and_never_fails_a_build(
    template,
):
    # Falcon writes literals into generated Python between quotes, as they are.
    builder = table_of(other=["/other/{x}"]).builder()
    try:
        builder.add("one", routes("one", template))
    except ConflictError as error:
        assert template in error.message  # noqa: PT017
    table = builder.build()
    assert find(table, "/other/1")
    path = template.replace("{x}", "1").replace("{y}", "1").replace("{c}", "1")
    assert owner_of(table, template) is None or find(table, path)


@pytest.mark.parametrize("template", ["/a\\nb/{x}", "/\\x41/{x}", "/a/\\u0041/{x}"])
def test_a_backslash_in_a_template_means_itself(template):
    builder = RouteTable.empty().builder()
    try:
        builder.add("one", routes("one", template))
    except ConflictError:
        return
    assert find(builder.build(), template.replace("{x}", "1"))


@pytest.mark.parametrize("template", ["/a/{x}\\", "/a/{x}\\d{y}\\", "/a/{x}-{"])
def test_a_template_whose_pattern_is_broken_is_a_conflict_error_or_served(template):
    builder = table_of(other=["/a/other/{x}"]).builder()
    try:
        builder.add("one", routes("one", template))
    except ConflictError as error:
        assert template in error.message  # noqa: PT017
    assert find(builder.build(), "/a/other/1")


class Asynchronous:
    async def on_get(self, req, resp, **fields): ...


@pytest.mark.parametrize("template", ["/a", "/a/{x}"])
def test_a_resource_with_coroutine_responders_is_refused_as_falcon_does(template):
    with pytest.raises(TypeError):
        falcon.App().add_route(template, Asynchronous())
    collector = RouteCollector("one", lambda frame: ("main.py", 1))
    collector.add_route(template, Asynchronous())
    with pytest.raises((LoadError, ConflictError)):
        RouteTable.empty().builder().add("one", collector.finish())


@pytest.mark.parametrize(
    ("thing", "template"),
    [
        (Thing, "/a"),
        (Thing, "/a/{x}"),
        (resource(on_get=lambda req: None), "/a"),
        (resource(on_get=lambda req, resp: None), "/a/{x}"),
        (resource(on_get=lambda req, resp, y: None, on_put=lambda: None), "/a/{x}"),
    ],
)
def test_a_resource_that_would_fail_at_every_request_is_refused(thing, template):
    collector = RouteCollector("one", lambda frame: ("main.py", 1))
    collector.add_route(template, thing)
    with pytest.raises(LoadError, match="takes something else") as caught:
        collector.finish()
    assert caught.value.line == 1


class Hooked:
    """A resource that takes more than the path has, and gets it from its hook."""

    def fill(req, resp, resource, params):
        params["more"] = "filled"

    @falcon.before(fill)  # type: ignore[arg-type]
    def on_get(self, req, resp, x, more):
        resp.media = [x, more]

    def on_post(self, req, resp):
        resp.media = "for another route"

    @staticmethod
    def on_put(req, resp, **fields):
        resp.media = fields

    @classmethod
    def on_patch(cls, req, resp, x="default"):
        resp.media = x


@pytest.mark.parametrize("thing", [Hooked(), Hooked])
def test_a_resource_of_which_something_can_answer_is_taken_as_falcon_does(thing):
    ours, theirs = register("/a/{x}", thing=thing), plainly("/a/{x}", thing=thing)
    for method in ("GET", "PUT", "PATCH") if thing is not Hooked else ("PUT", "PATCH"):
        assert call(ours, "/a/1", method).read() == call(theirs, "/a/1", method).read()


def test_find_conflict_agrees_with_the_builder():
    others = {"one": ["/a/{x}"], "two": ["/b"], "broken": ["/b"], SERVER: ["/plugins"]}
    assert find_conflict("new", ["/a/{x}/c", "/d", "/{first}"], others) is None
    assert "'one'" in find_conflict("new", ["/a/{y}"], others).message
    assert "'two'" in find_conflict("new", ["/b"], others).message
    assert SERVER in find_conflict("new", ["/plugins/x"], others).message


# --- all or none, and nothing published changes --------------------------------------------


def snapshot(table):
    """Copy all that a table holds, down to what its routers would answer."""
    return (
        table.number,
        dict(table.owned),
        dict(table.segments),
        {path: (r.resource, dict(r.methods), r.template) for path, r in table.paths.items()},
        {key: (id(router), router.finder_src) for key, router in table.routers.items()},
    )


def test_a_refused_add_leaves_no_trace():
    table = table_of(one=["/a/{x}", "/b"])
    before = snapshot(table)
    builder = table.builder()
    conflict(builder, "two", "/c", "/c/{z}", "/{first}", "/a/{x}/ok", "/a/{y}")
    after = builder.build()
    assert dict(after.owned) == dict(table.owned)
    assert dict(after.segments) == dict(table.segments)
    assert {path: route.template for path, route in after.paths.items()} == {"/b": "/b"}
    for path in ("/c", "/c/1", "/z", "/a/1/ok"):
        assert find(after, path) is None
    assert find(after, "/a/1")[0] is find(table, "/a/1")[0]
    assert snapshot(table) == before
    builder = after.builder()
    builder.add("two", routes("two", "/c", "/c/{z}"))  # the same templates are still free
    assert find(builder.build(), "/c/1")


def test_a_refused_add_after_an_accepted_one_keeps_the_accepted():
    builder = RouteTable.empty().builder()
    builder.add("one", routes("one", "/a/{x}", "/a/b"))
    conflict(builder, "two", "/a/c", "/a/{y}")
    table = builder.build()
    assert find(table, "/a/1")[0].name == "one/a/{x}"
    assert find(table, "/a/c")[0].name == "one/a/{x}"


def test_removing_frees_exactly_the_owners_routes():
    table = table_of(one=["/a", "/a/{x}", "/{f}"], two=["/a/b/c", "/b"])
    builder = table.builder()
    assert {route.template for route in builder.remove("one")} == {"/a", "/a/{x}", "/{f}"}
    assert builder.remove("nobody") == ()
    after = builder.build()
    assert set(after.owned) == {"two"}
    assert [bool(find(after, path)) for path in ("/a", "/a/1", "/z", "/a/b/c", "/b")] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert find(table, "/a/1")
    builder = after.builder()
    builder.add("three", routes("three", "/a/{other}", "/{other}"))
    assert find(builder.build(), "/a/1")[0].name == "three/a/{other}"


def test_removing_everything_leaves_an_empty_table():
    builder = table_of(one=["/a", "/b/{x}"], two=["/{y}"]).builder()
    builder.remove("one")
    builder.remove("two")
    table = builder.build()
    assert (table.owned, table.segments, table.paths, table.routers) == ({}, {}, {}, {})


def test_an_owner_without_routes_is_no_trouble():
    builder = RouteTable.empty().builder()
    builder.add("one", ())
    table = builder.build()
    builder = table.builder()
    assert builder.remove("one") == ()
    assert builder.build().owned == {}


def test_numbers_grow_by_one():
    table = RouteTable.empty()
    for expected in range(1, 5):
        table = table.builder().build()
        assert table.number == expected


def test_untouched_segments_keep_their_routers():
    table = table_of(one=["/a/{x}"], two=["/b/{x}"])
    builder = table.builder()
    builder.remove("two")
    builder.add("two", routes("two", "/b/{y}"))
    after = builder.build()
    assert after.routers["a"] is table.routers["a"]
    assert after.routers["b"] is not table.routers["b"]


def test_routers_are_compiled_before_they_are_published():
    for router in table_of(one=["/a/{x}", "/{f}"]).routers.values():
        assert router._find != router._compile_and_find


def test_the_router_of_the_application_refuses_falcons_add_route(app):
    with pytest.raises(TypeError, match="routes come from plugins"):
        app.add_route("/x", Thing())


# --- differential: against plain Falcon ----------------------------------------------------

SEGMENTS = st.sampled_from(
    [
        "",
        "a",
        "b",
        "a.b",
        "{x}",
        "{y}",
        "{x:int}",
        "{n:int(min=2)}",
        "{u:uuid}",
        "{x}-{y}",
        "{a}-{b}",
        "{x}.txt",
        "a{x}",
        "{x:int}b",
        "{p:path}",
        "{f:float}",
        "v1",
        "{x}.{y:int}",
        "ü",
    ]
)
PATH_SEGMENTS = st.sampled_from(
    [
        "",
        "a",
        "b",
        "a.b",
        "1",
        "2",
        "x-y",
        "a-b",
        "a.txt",
        "a1",
        "1b",
        "v1",
        "zz",
        "ü",
        "1.5",
        "x.7",
        "12345678123456781234567812345678",
        "{x}",
        "a-b-c",
        ".txt",
        "-",
    ]
)
TEMPLATES = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
PATHS = st.lists(PATH_SEGMENTS, max_size=4).map(lambda parts: "/" + "/".join(parts))
OWNERS = ["p0", "p1", "p2"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "remove", "build"]),
        st.sampled_from(OWNERS),
        st.lists(TEMPLATES, min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=10,
)


class Model:
    """What the table should hold: routes by owner, in order, and plain Falcon to search them."""

    def __init__(self):
        self.routes = []

    def router(self, extra=()):
        router = CompiledRouter()
        taken = set()
        for route in [*self.routes, *extra]:
            key = route.template.lstrip("/")
            if key in taken:
                raise ValueError("Falcon would override the route in silence")
            taken.add(key)
            router.add_route(route.template, route.resource)
        return router

    def accepts(self, new):
        try:
            self.router(new)
        except ValueError:
            return False
        return True

    def remove(self, owner):
        self.routes = [route for route in self.routes if route.owner != owner]


def same(ours, theirs):
    if ours is None or theirs is None:
        return ours is theirs
    return ours[0] is theirs[0] and ours[1:] == theirs[1:]


@pytest.mark.soak
@settings(max_examples=600, derandomize=True, deadline=None)
@given(STEPS, st.lists(PATHS, min_size=5, max_size=25))
def test_every_table_of_many_finds_what_plain_falcon_finds(steps, paths):
    check_every_table(steps, paths)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(STEPS, st.lists(PATHS, min_size=5, max_size=25))
def test_every_table_finds_what_plain_falcon_finds(steps, paths):
    check_every_table(steps, paths)


def check_every_table(steps, paths):
    model, table = Model(), RouteTable.empty()
    builder = table.builder()
    published = []
    for action, owner, templates in steps:
        if action == "build":
            table = builder.build()
            builder = table.builder()
            published.append((table, snapshot(table), model.router()))
        elif action == "remove":
            builder.remove(owner)
            model.remove(owner)
        else:
            builder.remove(owner)
            model.remove(owner)
            new = routes(owner, *templates)
            accepted = model.accepts(new)
            try:
                builder.add(owner, new)
            except ConflictError:
                assert not accepted, f"refused, but plain Falcon takes {templates}"
            else:
                assert accepted, f"taken, but plain Falcon refuses {templates}"
                model.routes += new
    table = builder.build()
    published.append((table, snapshot(table), model.router()))
    own = [route.template for route in model.routes]
    for kept, before, plain in published:
        assert snapshot(kept) == before
        for path in [*paths, *own]:
            ours, theirs = find(kept, path), plain_find(plain, path)
            assert same(ours, theirs), f"{path}: {ours}, plain Falcon: {theirs}"


LITERALS = st.lists(
    st.text(string.ascii_lowercase + "'\"\\.-_~%$()[]*+?^|{}:!@é", min_size=1, max_size=4),
    min_size=1,
    max_size=3,
).map(lambda parts: "/" + "/".join(parts))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(LITERALS, st.booleans())
def test_odd_literals_never_fail_a_build_and_are_found_if_accepted(template, with_field):
    template += "/{field}" if with_field else ""
    builder = table_of(other=["/other/{x}"]).builder()
    try:
        builder.add("one", routes("one", template))
    except ConflictError:
        return
    table = builder.build()
    assert find(table, "/other/1")
    assume(template.count("{") == int(with_field))
    assert find(table, template.replace("{field}", "1"))


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    st.permutations(["/a", "/a/{x}", "/a/{x}/b", "/{f}", "/{f}/c", "/b/{x}-{y}", "/b/{p:path}"]),
    st.lists(PATHS, min_size=5, max_size=20),
)
def test_templates_that_do_not_exclude_each_other_may_come_in_any_order(templates, paths):
    builder = RouteTable.empty().builder()
    plain = CompiledRouter()
    for number, template in enumerate(templates):
        (route,) = routes(f"p{number}", template)
        builder.add(route.owner, (route,))
        plain.add_route(template, route.resource)
    table = builder.build()
    for path in paths:
        assert same(find(table, path), plain_find(plain, path)), path


APP_TEMPLATES = ["/", "/a", "/a/", "/a/{x:int}", "/{f}", "/a/b/{p:path}", "/ü/{x}", "/{a}-{b}/c"]
APP_PATHS = [
    "/",
    "//",
    "/a",
    "/a/",
    "/a/1",
    "/a/x",
    "/zzz",
    "/a/b/c/d",
    "/a/b",
    "/%C3%BC/1",
    "/x-y/c",
    "/x-y/d",
    "/a//1",
    "/nothing/here",
    "/a%2F1",
    "/%2Fa",
    "/a/%31",
]


class Full:
    """A resource with some methods."""

    def on_get(self, req, resp, **fields):
        resp.media = {"template": req.uri_template, "fields": fields, "path": req.path}

    def on_delete(self, req, resp, **fields):
        resp.status = 204

    def on_head(self, req, resp, **fields):
        resp.set_header("X-Head", "yes")


@pytest.fixture(scope="module")
def both_apps():
    live, plain = LiveApp(), falcon.App()
    things = {template: Full() for template in APP_TEMPLATES}
    for number, (template, thing) in enumerate(things.items()):
        put(live, f"p{number % 3}x{number}", {template: thing})
        plain.add_route(template, thing)
    put(live, "plain", {"/none": resource(on_put=lambda req, resp: None)})
    plain.add_route("/none", resource(on_put=lambda req, resp: None))
    return live, plain


@pytest.mark.parametrize("path", [*APP_PATHS, "/none"])
@pytest.mark.parametrize(
    "method", ["GET", "POST", "OPTIONS", "HEAD", "DELETE", "PATCH", "PUT", "TRACE", "NONSENSE"]
)
def test_the_application_answers_as_plain_falcon_does(both_apps, path, method):
    def ask(app):
        answer = call(app, path, method)
        return answer.calls, answer.read()

    live, plain = map(ask, both_apps)
    assert live == plain


def test_a_table_is_not_shared_by_copies_of_its_dictionaries():
    table = table_of(one=["/a", "/b/{x}"])
    owned, segments = copy.copy(table.owned), copy.copy(table.segments)
    for number in itertools.count():
        builder = table.builder()
        builder.add(f"n{number}", routes(f"n{number}", f"/a/{number}", f"/b/{{x}}/{number}"))
        if number == 20:
            break
    assert (table.owned, table.segments) == (owned, segments)


# --- templates: what Falcon serves is served, what it refuses is refused --------------------


def register(*templates, thing=None, **options):
    """Register templates as a plugin does, and return an application that serves them."""
    collector = RouteCollector("one", lambda frame: ("main.py", frame.f_lineno))
    for template in templates:
        collector.add_route(template, thing or Thing(template), **options)
    app = LiveApp()
    builder = app.table.builder()
    builder.add("one", collector.finish())
    app.swap(builder.build())
    return app


def plainly(*templates, thing=None, **options):
    app = falcon.App()
    for template in templates:
        app.add_route(template, thing or Thing(template), **options)
    return app


SERVED = {
    '/{when:dt("%Y-%m-%d")}': ["/2020-01-02", "/2020-1-2x", "/x", "/"],
    "/{when:dt('%H')}": ["/12", "/32"],
    '/{a:dt("%Y-%m")}/{b:dt("%H:%M")}': ["/2020-01/12:30", "/2020-01/12", "/x/12:30"],
    "/a/{a:dt('%Y')}-{b:dt('%H')}/{c:dt()}": ["/a/2020-12/2020-01-02T03:04:05Z", "/a/2020-x/y"],
    '/{a:dt("%Y")}/{b:dt("%d/%m")}': ["/2020/{b:dt(%22%d/%m%22)}", "/2020/12/11"],
    "/{x}'s": ["/it's", "/its"],
    "/'{x}'": ["/'a'", "/a"],
    "/{x}\\d": ["/a1", "/ab"],
    "/x/{x:re(r'\\d+')}": ["/x/12", "/x/1a"],
    '/x/{x:re("[ab]{2")}': ["/x/a", "/x/[ab]{2"],
    '/x/{x:re("\\\\d+", None)}': ["/x/12", "/x/a"],
    '/{x:re("(?P<n>.)b", "n")}': ["/ab", "/abc"],
    '/a"b/{x}': ["/a%22b/1"],
    "/{x:int(num_digits=2, min=1 + 1)}": ["/12", "/01", "/123"],
    "/{x:int(\n2\n)}": ["/12"],
    "/{x:int(*(2, 5))}": ["/12", "/04"],
    "/{x:float(min=-1.5, finite=True)}": ["/-1.5", "/-2", "/nan"],
    "/{": ["/{", "/a"],
    "/{x:int(}": ["/{x:int(}", "/1"],
    "/{x}}": ["/a}", "/a"],
}


@pytest.mark.parametrize("template", SERVED)
def test_a_template_that_falcon_serves_answers_as_falcon_does(template):
    ours, theirs = register(template), plainly(template)
    for path in SERVED[template]:
        path = path.replace("%d", "%25d").replace("%m", "%25m")
        expected = call(theirs, path)
        answer = call(ours, path)
        assert (answer.status, answer.status == 200 and answer.read()) == (
            expected.status,
            expected.status == 200 and expected.read(),
        ), path


def test_the_fields_of_a_template_are_those_that_falcon_reads():
    from falcon.routing import compiled

    assert FIELD_PATTERN.pattern == compiled._FIELD_PATTERN.pattern


@pytest.mark.parametrize(
    "template",
    [
        "/it's",
        "/a/it's/{x}",
        "/'a'",
        "/{x\n}",
        "/a{x\n}",
        "/a b",
        "/{x}\n",
        "/{x y}",
        "/{x:nothing}",
        "/{x:int('a')}",
        "/{x:int(0)}",
        "/{x:int(5, 6, 7, 8)}",
        "/{x:re('(')}",
        "/{x:dt(%Y)}",
        "/{x:int(*5)}",
        "/{x:int(2) or 1}",
        "/{x}\\q",
        "/a//b",
        "//a",
        "/{x:re('//')}",
        "/" + "/".join("abcdefghijklmnopqrstuvwxyz" * 2) + "/{x}",
        "/" + "/".join(f"{{{letter}{n}:int}}" for letter in "abc" for n in range(17)),
    ],
)
def test_a_template_that_falcon_refuses_is_refused_at_its_line(template):
    with pytest.raises((ValueError, SyntaxError, re.error)):
        plain = falcon.App()
        plain.add_route(template, Thing())
        plain._router.finder_src  # noqa: B018 - compiles it
    with pytest.raises(LoadError) as caught:
        register(template)
    assert (caught.value.phase, caught.value.file) == ("register_routes", "main.py")
    assert caught.value.line is not None
    assert repr(template)[:20] in caught.value.message


def test_a_fault_of_a_converter_says_what_the_converter_said():
    assert "num_digits must be at least 1" in template_fault("/{x:int(0)}")


@pytest.mark.parametrize(
    "template",
    ["/{x:dt(5)}", "/a/{x:int(min='0')}", "/{x:int(3, max='a')}-b", "/{x:float(max=[])}/c"],
)
def test_a_converter_that_would_raise_at_requests_is_refused_at_its_line(template):
    # Below a leading field it would fail every path that nobody else answers.
    with pytest.raises(LoadError, match="TypeError") as caught:
        register(template)
    assert (caught.value.phase, caught.value.file) == ("register_routes", "main.py")


@pytest.fixture
def trap(monkeypatch):
    """A built-in that a template's code would call; the list tells whether it did."""
    called = []
    monkeypatch.setattr("builtins.benana_trap", lambda *_: called.append(1) or 1, raising=False)  # type: ignore[func-returns-value]
    return called


@pytest.mark.parametrize(
    "template",
    [
        "/{x:int(benana_trap())}",
        "/{x:int(min=benana_trap())}",
        "/{x:int((lambda: benana_trap())())}",
        "/{x:int(*[benana_trap() for _ in (1,)])}",
        "/{x:re(f'{benana_trap()}')}",
        "/{x:int(1).__class__(benana_trap())}",
        "/{x:int(1)or(benana_trap())}",
        "/{x:int(1),benana_trap(1)}",
        "/{x:int(IntConverter(benana_trap()))}",
        "/' + str(benana_trap()) + '",
        "/a' or benana_trap() or '/{x}",
        "/a'or(benana_trap())or'/{x}",
        "/{x/':\n        pass\n    benana_trap()\n    if '}",
        "/{x/'\\\r:\n        pass\n    benana_trap()\n    #}",
        "/a{x/\n    benana_trap()\n    #}{y}",
        "/{x']=benana_trap()#}",
        "/a{x\n}{y}",
    ],
)
def test_no_text_of_a_template_becomes_code(trap, template):
    with pytest.raises(LoadError):
        register(template)
    # A row of the database can hold it too.
    assert find_conflict("one", [template], {}) is not None
    find_conflict("one", ["/{free}", "/a/{x}"], {"evil": [template]})
    assert not trap


def test_keyword_arguments_of_falcons_add_route_are_taken():
    options = {"suffix": "item", "compile": True, "some_routers_own": 1}
    for app in (plainly("/a/{x}", **options), register("/a/{x}", **options)):
        assert [call(app, "/a/1", m).status for m in ("POST", "GET")] == [200, 405]
    assert call(register("/a/{x}", compile=False), "/a/1").status == 200


@pytest.mark.parametrize("other", ["/{y}", "/b/{y}", "/a"])
@pytest.mark.parametrize("template", ["/{x:dt(5)}", "/a/{x:int(min='0')}", "/a/{x:dt(None)}-b"])
def test_a_converter_that_raises_at_a_request_is_a_500_of_its_plugin(app, caplog, template, other):
    builder = app.table.builder()
    builder.add("one", routes("one", template))
    with contextlib.suppress(ConflictError):  # where both are a field's, Falcon takes one
        builder.add("two", routes("two", other))
    app.swap(builder.build())
    path = "/a/5-b" if template.endswith("b") else template.partition("{")[0] + "5"
    answer = call(app, path)
    assert answer.status == 500
    assert "'one'" in json_of(answer.read())["detail"]
    assert caplog.records[-1].getMessage().startswith("one: GET")


@pytest.mark.parametrize("segment", sorted(RESERVED_SEGMENTS))
def test_no_field_answers_below_a_reserved_segment(segment):
    fields = ["/{a}", "/{a}/", "/{a}/{b}", "/{a}/{b}/{c}", "/{p}.json", "/{b}i", "/{a}/x/y/z"]
    table = table_of(**{SERVER: ["/plugins"]}, one=fields)
    for rest in ("", "/", "/x", "/x/y", "/x/y/z"):
        for slashes in ("/", "//"):
            found = find(table, f"{slashes}{segment}{rest}")
            assert found is None or found[2] == "/plugins"
        assert find(table, f"/{segment}x{rest}")[2] in fields


def test_a_rest_of_the_path_does_not_take_a_reserved_segment():
    table = table_of(one=["/{rest:path}"])
    assert find(table, "/plugins/x/y") is None
    assert find(table, "/plugin/x/y")[1] == {"rest": "plugin/x/y"}


# --- HEAD and OPTIONS ----------------------------------------------------------------------


class Reading:
    """A resource that only reads, in several ways."""

    def __init__(self):
        self.closed = 0
        self.asked = []
        self.kept = []  # so that nothing is closed for want of references

    def on_get(self, req, resp, kind):
        self.asked.append(req.method)
        resp.set_header("X-Kind", kind)
        if kind == "media":
            resp.media = {"some": "thing"}
        elif kind == "text":
            resp.text = "text"
        elif kind == "error":
            raise falcon.HTTPConflict(title="No", headers={"X-Kind": kind})
        elif kind == "moved":
            raise falcon.HTTPFound("/elsewhere")
        elif kind == "nothing":
            resp.status = 204
        elif kind == "stream":
            resp.set_stream(self.file(b"12345"), 5)
        elif kind == "endless":
            resp.stream = self.generator()
        elif kind == "rude":
            resp.stream = self.file(b"", OSError("no"))
        self.kept.append(resp.stream)

    def file(self, content, error=None):
        outer = self

        class File(io.BytesIO):
            def close(self):
                if not self.closed:
                    outer.closed += 1
                    super().close()
                    if error:
                        raise error

        return File(content)

    def generator(self):
        try:
            while True:
                yield b"more"
        finally:
            self.closed += 1


READ = ["media", "text", "error", "moved", "nothing", "stream", "plain"]


@pytest.mark.parametrize("kind", READ)
def test_head_is_answered_wherever_get_is_with_the_same_headers_and_no_body(kind):
    thing = Reading()
    app = register("/{kind}", thing=thing)
    got, head = call(app, f"/{kind}"), call(app, f"/{kind}", "HEAD")
    assert (head.status, head.headers) == (got.status, got.headers)
    assert head.read() == b""
    assert thing.asked == ["GET", "HEAD"]
    got.close()
    assert thing.closed == (2 if kind == "stream" else 0)


@pytest.mark.parametrize("kind", ["stream", "rude"])
@pytest.mark.parametrize("wrapper", [None, lambda file, size=0: iter(lambda: file.read(9), b"")])
def test_the_stream_of_a_head_is_closed_and_not_read(kind, wrapper):
    thing = Reading()
    answer = call(
        register("/{kind}", thing=thing), f"/{kind}", "HEAD", **{"wsgi.file_wrapper": wrapper}
    )
    assert (answer.status, answer.read(), thing.closed) == (200, b"", 1)


def test_a_generator_that_streams_is_closed_after_a_head_without_a_length():
    thing = Reading()
    app = register("/{kind}", thing=thing)
    answer = call(app, "/endless", "HEAD")
    assert (answer.status, answer.read()) == (200, b"")
    assert "content-length" not in answer.headers
    assert next(thing.kept[0], None) is None
    assert app.running.in_use() == (None, frozenset())


def test_a_head_that_a_plugin_answers_itself_is_its_own_and_none_is_made_without_a_get():
    class Own(Reading):
        def on_head(self, req, resp, kind):
            resp.set_header("X-Own", "yes")

    assert call(register("/{kind}", thing=Own()), "/media", "HEAD").headers["x-own"] == "yes"
    writing = register("/x", thing=resource(on_post=lambda req, resp: None))
    answer = call(writing, "/x", "HEAD")
    assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize("suffix", [None, "item"])
def test_allow_names_head_for_options_and_405(suffix):
    name = "on_get_item" if suffix else "on_get"
    app = register("/x", thing=resource(**{name: lambda req, resp: None}), suffix=suffix)
    assert call(app, "/x", "OPTIONS").headers["allow"] == "GET, HEAD"
    refused = call(app, "/x", "POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_head_is_not_recorded_as_an_endpoint():
    found = collect(lambda server: server.get("/x", lambda: 1))
    assert [endpoint.method for endpoint in found[0].endpoints] == ["GET"]
    assert found[0].methods["HEAD"] is not None


# --- the collector -------------------------------------------------------------------------


def collect(register):
    collector = RouteCollector("one", lambda frame: ("main.py", frame.f_lineno))
    register(collector)
    return collector.finish()


def test_routes_are_returned_in_order_with_their_endpoints():
    def register(server):
        server.get("/b", lambda: 1)
        server.post("/b", lambda body: 1)
        server.add_route("/a/{x}", Thing())

    found = collect(register)
    assert [route.template for route in found] == ["/b", "/a/{x}"]
    assert [(e.method, e.path) for route in found for e in route.endpoints] == [
        ("GET", "/b"),
        ("POST", "/b"),
        ("GET", "/a/{x}"),
    ]
    assert found[1].endpoints[0].handler == "Thing.on_get"
    assert {route.owner for route in found} == {"one"}


def test_all_faults_of_a_registration_are_named_at_once_even_if_they_were_swallowed():
    def register(server):
        server.get("/twice", lambda: 1)
        server.get("/twice", lambda: 2)
        server.get("relative", lambda: 1)
        server.get(5, lambda: 1)
        server.get("/x/{y}", lambda: 1)
        server.add_route("/none", object())
        server.add_route("/suffix", Thing(), suffix="nowhere")
        server.add_route("/twice", Thing())
        server.post("/long" + "x" * 500, lambda: 1)
        server.get("/nul\0", lambda: 1)

    with pytest.raises(LoadError) as caught:
        collect(register)
    message = caught.value.message
    for part in ("GET /twice", "'relative'", "5", "{y}", "/none", "/suffix", "500", "route /twice"):
        assert part in message
    assert message.count(";") >= 8
    assert caught.value.phase == "register_routes"
    assert caught.value.file == "main.py"


class Pages:
    def item(self, number: int = 0):
        return number


@pytest.mark.parametrize("turn", [1, -1])
def test_on_a_route_without_the_field_the_query_or_the_default_counts(turn):
    pages = Pages()
    templates = ["/item", "/item/{number:int}"][::turn]
    found = collect(lambda server: [server.get(t, pages.item) for t in templates])
    app = LiveApp()
    builder = app.table.builder()
    builder.add("one", found)
    app.swap(builder.build())
    assert [json_of(call(app, path).read()) for path in ("/item", "/item/5")] == [0, 5]
    asked = (
        call(app, "/item", QUERY_STRING="number=7"),
        call(app, "/item/5", QUERY_STRING="number=7"),
    )
    assert [json_of(answer.read()) for answer in asked] == [7, 5], "the path comes first"


def test_a_route_after_the_end_of_the_registration_is_refused():
    kept = []
    collect(lambda server: kept.append(server))
    with pytest.raises(LoadError, match="register_routes had ended"):
        kept[0].get("/late", lambda: 1)


def test_a_handler_on_a_template_of_a_resource_is_refused():
    def register(server):
        server.add_route("/a", Thing())
        server.post("/a", lambda body: 1)

    with pytest.raises(LoadError, match="registered twice"):
        collect(register)


def test_a_template_that_utf_8_cannot_hold_is_refused():
    with pytest.raises(LoadError):
        collect(lambda server: server.get("/\ud800", lambda: 1))


def test_a_registration_without_routes_is_empty():
    assert collect(lambda server: None) == ()


@pytest.mark.parametrize("layered", [False, True])
def test_a_table_of_two_layers_finds_what_one_of_one_layer_finds(layered):
    empty = RouteTable.empty(small=1, merged_share=0.01) if layered else RouteTable.empty()
    table = table_of(empty, one=["/a", "/a/{x}", "/b"], two=["/c/{y}", "/d"], three=["/{first}/e"])
    builder = table.builder()
    builder.remove("one")
    builder.add("one", routes("one", "/a/new", "/a/{x}/deep"))
    builder.remove("two")
    after = builder.build()
    assert (not after.plain_paths) is layered
    paths = ["/a", "/a/1", "/b", "/c/1", "/d", "/q/e", "/a/new", "/a/1/deep", "//a/new", "", "*"]
    found = {path: find(after, path) and find(after, path)[2] for path in paths}
    assert found == dict.fromkeys(["/a", "/a/1", "/b", "/c/1", "/d", "", "*"]) | {
        "/q/e": "/{first}/e",
        "/a/new": "/a/new",
        "/a/1/deep": "/a/{x}/deep",
        "//a/new": "/a/new",
    }
    assert find(table, "/a/1")[2] == "/a/{x}"
    assert owner_of(after, "/c/{y}") is None
    assert set(after.owned) == {"one", "three"}
