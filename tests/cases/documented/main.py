"""A plugin that uses all that a document describes."""

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired

import falcon
from pydantic import BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict

from app.plugin import (
    Answer,
    Cookie,
    Event,
    File,
    Form,
    Header,
    PluginContext,
    PluginInterface,
    PluginMetadata,
    PluginServer,
    Problem,
    Produces,
    Query,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    """Something that is sold."""

    name: str = Field(min_length=1, max_length=20)
    price: decimal.Decimal = Field(ge=0, max_digits=9, decimal_places=2)
    colour: Colour = Colour.RED
    parts: list["Item"] = []


class Order(BaseModel):
    model_config = ConfigDict(extra="ignore")

    number: int = Field(ge=1, le=1000)
    items: list[Item] = Field(max_length=3)
    at: datetime.datetime | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        """How many items."""
        return len(self.items)


@dataclasses.dataclass
class Place:
    id: uuid.UUID
    day: datetime.date
    note: str | None = None


class Box(TypedDict):
    width: int
    inside: NotRequired["Box"]


class SignUp(BaseModel):
    name: str = Field(min_length=1)
    age: int = Field(default=18, ge=0)


class Seats:
    """A Falcon resource."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, number: int) -> None:
        """Show a seat."""
        resp.media = {"number": number}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, number: int) -> None:
        resp.status = falcon.HTTP_204

    def on_get_all(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show all seats."""
        resp.media = []


class Middleware:
    def process_response(self, req: Any, resp: Any, resource: Any, succeeded: bool) -> None:
        resp.set_header("X-Documented", "yes")


def need_nothing(req: falcon.Request, resp: falcon.Response, resource: Any, params: Any) -> None:
    """Let everything pass."""


def mounted(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"mounted"]


class Documented(PluginInterface):
    def initialize(self, context: PluginContext) -> None: ...

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata("documented", "1.0", "Uses all that a document describes.")

    def register_routes(self, server: PluginServer) -> None:
        server.add_middleware(Middleware())
        orders = server.group("/documented/orders", tags=["orders"], before=need_nothing)
        orders.get("/{number}", self.find_order, responses={404: "There is none."})
        orders.post("", self.create_order, status=201, after=lambda req, resp, resource: None)
        orders.put("/many", self.create_orders, operation_id="create_many")
        orders.delete("/{number}", self.delete_order, deprecated=True)
        server.get("/documented/search/{kind}", self.search, security="bearer")
        server.post("/documented/place", self.place, responses={409: ("It is taken.", Place)})
        server.post("/documented/box", self.box)
        server.post("/documented/scalar", self.scalar)
        server.post("/documented/raw", self.raw)
        server.get("/documented/answer", self.answer)
        server.get("/documented/parts", self.parts)
        server.sse("/documented/events", self.events, description="Three of them.")
        server.post("/documented/form", self.form)
        server.post("/documented/sign-up", self.sign_up)
        server.post("/documented/upload", self.upload)
        server.get("/documented/types", self.types)
        server.get("/documented/free/{rest:path}", self.free)
        server.get("/documented/plain", self.plain)
        server.get("/documented/hidden", self.plain, hidden=True)
        server.add_route("/documented/seats/{number:int}", Seats())
        server.add_route("/documented/seats", Seats(), suffix="all", summary="All of them")
        server.mount("/documented/mounted", mounted)

    def cleanup(self, context: PluginContext) -> None: ...

    def find_order(self, number: Annotated[int, Field(ge=1)]) -> Order | None:
        """Find an order.

        Args:
            number: its number.
        """
        if number > 900:
            raise Problem(404, f"There is no order {number}.", members={"last": 900})
        return Order(number=number, items=[]) if number % 2 else None

    def create_order(self, body: Order, notify: bool = False) -> Order:
        return body

    def create_orders(
        self, body: list[Order], req: falcon.Request
    ) -> tuple[dict[str, int], Literal[200, 202]]:
        return {"orders": len(body)}, 200 if body else 202

    def delete_order(self, number: int) -> None:
        """Delete an order."""

    def search(
        self,
        kind: Literal["new", "old"],
        limit: Annotated[int, Field(ge=1, le=100)] = 10,
        day: datetime.date | None = None,
        tags: Annotated[list[str], Query("tag")] = [],  # noqa: B006 - never changed
        colour: Colour = Colour.BLUE,
        token: Annotated[str | None, Header("X-Token")] = None,
        session: Annotated[int, Cookie()] = 0,
    ) -> dict[str, str | int | list[str]]:
        return {"kind": kind, "limit": limit, "tags": tags, "session": session}

    def place(self, body: Place) -> Place:
        if body.note == "taken":
            raise falcon.HTTPConflict(description="It is taken.")
        return body

    def box(self, body: Box) -> list[Box]:
        return [{"width": len(body), "inside": {"width": 0}}]

    def scalar(self, body: float | None) -> list[float]:
        return [] if body is None else [body]

    def raw(self, body: bytes) -> dict[str, int]:
        return {"length": len(body)}

    def answer(self, html: bool = False) -> Answer[Any]:
        if html:
            return Answer("<p>yes", headers={"Content-Type": "text/html"})
        return Answer({"html": False}, status=203)

    def parts(self, number: Annotated[int, Field(ge=0, le=20)] = 3) -> Iterator[str]:
        for part in range(number):
            yield f"{part}\n"

    def events(self, first: int = 0) -> Iterator[Event]:
        for number in range(3):
            yield Event({"number": first + number}, id=number)

    def form(self, name: Annotated[str, Form()], age: Annotated[int, Form()] = 0) -> Answer[Any]:
        return Answer({"name": name, "age": age}, status=201)

    def sign_up(self, body: Annotated[SignUp, Form()]) -> SignUp:
        return body

    def upload(self, photo: File, title: Annotated[str, Form()] = "") -> dict[str, int | str]:
        return {"size": photo.size, "title": title}

    def types(
        self, name: str = "a"
    ) -> Annotated[SignUp, Produces("application/json", "application/yaml", "text/html")]:
        return SignUp(name=name or "b")

    def free(self, rest: str, req: falcon.Request, resp: falcon.Response) -> dict[str, str]:
        resp.set_header("X-Length", str(len(rest)))
        return {"rest": rest}

    def plain(self):  # type: ignore[no-untyped-def]
        return {"plain": True}


def new_plugin() -> PluginInterface:
    return Documented()
