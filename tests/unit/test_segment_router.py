"""The router of a segment: it is made of the one before where an edit changes no template."""

import gc
import weakref
from typing import Any

import pytest
from falcon.routing import BaseConverter

from app.errors import ConflictError
from app.loading.routes import Route
from app.loading.segment_router import StandTogether, template_fault
from app.routing.table import RouteTable


class Numbered:
    """Says which version it is."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_get(self, req: Any, resp: Any, **fields: Any) -> None:
        resp.media = self.number


TEMPLATES = ("/p", "/p/{a:int}", "/p/{a:int}/x", "/p/{a:int}/{b}", "/p/all")
RENAMED = tuple(template.replace("{a:", "{other:") for template in TEMPLATES)


def table_of(
    before: RouteTable, versions: dict[str, int], templates: Any = TEMPLATES
) -> RouteTable:
    builder = before.builder()
    for owner, number in versions.items():
        builder.remove(owner)
        builder.add(owner, tuple(Route(owner, t, Numbered(number)) for t in templates))
    return builder.build()


def answers_of(table: RouteTable) -> list[Any]:
    paths = ("/p", "/p/1", "/p/1/x", "/p/y/x", "/p/2/b", "/p/all", "/p/2/b/c", "/p/")
    found = [table.search(path) for path in paths]
    return [m and (m[0].number, m[2], m[3]) for m in found]  # type: ignore[attr-defined]


def test_an_edit_that_changes_no_template_compiles_none() -> None:
    first = table_of(RouteTable.empty(), {"p": 1})
    second = table_of(first, {"p": 2})
    third = table_of(second, {"p": 3})
    fresh = table_of(RouteTable.empty(), {"p": 3})
    assert third.routers.find("p").finder is first.routers.find("p").finder
    assert fresh.routers.find("p").finder is not first.routers.find("p").finder
    assert answers_of(third) == answers_of(fresh)
    assert answers_of(first) == [m and (1, *m[1:]) for m in answers_of(third)]


def test_a_router_that_is_made_of_another_one_keeps_nothing_of_it() -> None:
    table = table_of(RouteTable.empty(), {"p": 1})
    resources = [weakref.ref(route.resource) for route in table.owned.find("p") or ()]
    table = table_of(table, {"p": 2})
    gc.collect()
    assert not [ref for ref in resources if ref() is not None]


@pytest.mark.parametrize(
    "templates",
    [TEMPLATES[:-1], (*TEMPLATES, "/p/{a:int}/z"), TEMPLATES[::-1], RENAMED],
)
def test_other_templates_are_compiled(templates: Any) -> None:
    first = table_of(RouteTable.empty(), {"p": 1})
    second = table_of(first, {"p": 2}, templates)
    assert second.routers.find("p").finder is not first.routers.find("p").finder
    assert answers_of(second) == answers_of(table_of(RouteTable.empty(), {"p": 2}, templates))


def test_a_shared_segment_takes_routes_after_one_was_made_of_another() -> None:
    first = table_of(RouteTable.empty(), {"p": 1})
    builder = first.builder()
    builder.remove("p")
    builder.add("p", tuple(Route("p", template, Numbered(2)) for template in TEMPLATES))
    builder.add("q", (Route("q", "/p/{a:int}/{b}/c", Numbered(7)),))
    table = builder.build()
    assert [m and m[0] for m in answers_of(table)] == [2, 2, 2, None, 2, 2, 7, None]
    assert answers_of(table)[1] == (2, {"a": 1}, "/p/{a:int}")
    with pytest.raises(ConflictError):
        table.builder().add("r", (Route("r", "/p/{other:int}/x", Numbered(9)),))


def test_a_converter_of_a_plugins_own_is_the_new_versions() -> None:
    def with_converter(before: RouteTable, word: str) -> RouteTable:
        class Own(BaseConverter):
            def convert(self, value: str) -> str:
                return word

        builder = before.builder()
        builder.remove("p")
        builder.add("p", (Route("p", "/p/{a:own}", Numbered(1), converters={"own": Own}),))
        return builder.build()

    table = with_converter(with_converter(RouteTable.empty(), "old"), "new")
    match = table.search("/p/1")
    assert match is not None
    assert match[2] == {"a": "new"}


def test_what_is_remembered_of_a_template_keeps_no_object_of_a_plugins() -> None:
    class Text(str):
        """A text with code of its own, which says that it is another one."""

        __slots__ = ("__weakref__",)

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash("/quoted'")

    template = Text("/plain")
    reference = weakref.ref(template)
    assert template_fault(template) is None
    del template
    gc.collect()
    assert reference() is None
    assert template_fault("/quoted'") is not None


def test_templates_that_are_tried_together_have_the_faults_that_they_have_alone():
    """Two that exclude each other are told so later, with the names of both."""
    templates = [
        *("/a/{x}", "/a/{x}/b", "/a/{y}", "/a/{y}/{z}", "/a/{x}", "/{x:int(2)}", "/{x:int}"),
        *("/{x}/{x}", "/{x y}", "/{x:nothing}", "/a/{x:path}/b", "/a/{x:path}", "/{x}-{y}"),
        *("/a b", "/{x", "/{x:int(0)}", "/c/{x:int}", "/c/{x}", "/" + "a/" * 30 + "b", "/a//b"),
    ]
    for order in (templates, templates[::-1]):
        others = StandTogether()
        for template in order:
            assert template_fault(template, others=others) == template_fault(template)
    assert sum(template_fault(template) is None for template in templates) > 8
