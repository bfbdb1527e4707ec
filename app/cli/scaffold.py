"""The folder of a new plugin: small, and it works."""

import os
import shutil
from pathlib import Path

from app.errors import BenanaError
from app.records import is_plugin_name
from app.routing.server_routes import RESERVED_SEGMENTS

_MAIN = '''\
"""The plugin {name}: save this file, and every worker serves the change."""

from app.plugin import PluginContext, PluginInterface, PluginMetadata, PluginServer


class {class_name}(PluginInterface):
    def initialize(self, context: PluginContext) -> None:
        self.greeting = context.config.get("greeting", "Hello")

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(name="{name}", version="1.0.0")

    def register_routes(self, server: PluginServer) -> None:
        server.get("/{name}", self.handle_get)
        server.post("/{name}", self.handle_post)

    def cleanup(self, context: PluginContext) -> None: ...

    def handle_get(self) -> dict:
        return {{"message": f"{{self.greeting}} from {name}!"}}

    def handle_post(self, body: dict) -> dict:
        return {{"received": body}}


def new_plugin() -> PluginInterface:
    return {class_name}()
'''

_TYPED_MAIN = '''\
"""The plugin {name}: save this file, and every worker serves the change."""

from typing import Annotated

from pydantic import BaseModel, Field

from app.plugin import PluginContext, PluginInterface, PluginMetadata, PluginServer


class Greeting(BaseModel):
    """What the plugin says."""

    message: str


class Order(BaseModel):
    """What somebody orders."""

    fruit: str = Field(min_length=1)
    count: int = Field(default=1, ge=1, le=100)


class Receipt(BaseModel):
    """What an order comes to."""

    order: Order
    total: float


class {class_name}(PluginInterface):
    def initialize(self, context: PluginContext) -> None:
        self.greeting = context.config.get("greeting", "Hello")

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(name="{name}", version="1.0.0")

    def register_routes(self, server: PluginServer) -> None:
        server.get("/{name}", self.greet)
        server.post("/{name}", self.place_order, status=201)

    def cleanup(self, context: PluginContext) -> None: ...

    def greet(self, times: Annotated[int, Field(ge=1, le=9)] = 1) -> Greeting:
        """Greet somebody.

        Args:
            times: how often.
        """
        return Greeting(message=" ".join([f"{{self.greeting}} from {name}!"] * times))

    def place_order(self, body: Order) -> Receipt:
        """Order some fruit.

        Returns:
            The order, and what it comes to.
        """
        return Receipt(order=body, total=0.25 * body.count)


def new_plugin() -> PluginInterface:
    return {class_name}()
'''

_MANIFEST = """\
description: Says hello
origins: same # pages of other sites may not call it; a list lets some in: [https://app.example.com]
config: # main.py finds it in context.config
  greeting: Hello
"""


class ScaffoldError(BenanaError):
    """A plugin's folder cannot be written; the message is one sentence."""


def write_plugin(root: Path, name: str, *, typed: bool = False) -> Path:
    """Write the folder of a new plugin, so that a running server sees it whole or not at all.

    Args:
        root: the plugins' root; it is made if there is none.
        name: the plugin's name.
        typed: whether its handlers take and return models of pydantic's.

    Returns:
        The new folder.

    Raises:
        ScaffoldError: the name cannot be used, is taken, or the root cannot be written.
    """
    if not is_plugin_name(name):
        raise ScaffoldError(
            f"The name is {name!r}; expected 1 to 63 of a-z, 0-9 and _, a letter first."
        )
    if name in RESERVED_SEGMENTS:
        raise ScaffoldError(f"The route /{name} is the server's own; expected another name.")
    folder = root / name
    if os.path.lexists(folder):
        raise ScaffoldError(f"{folder} is there already, and stays as it is; choose another name.")
    # Hidden, so that no scan takes it for a plugin, and in the same file system as its place.
    draft = root / f".{name}.{os.getpid()}"
    try:
        draft.mkdir(parents=True)
        try:
            main = (_TYPED_MAIN if typed else _MAIN).format(name=name, class_name=_class_name(name))
            (draft / "main.py").write_text(main, encoding="utf-8")
            (draft / "plugin.yaml").write_text(_MANIFEST, encoding="utf-8")
            draft.rename(folder)  # it refuses a folder that came meanwhile and holds something
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be written: {error.strerror}.") from None
    return folder


def _class_name(name: str) -> str:
    # The ending keeps `none` from becoming None, and `plugin_context` from hiding the import.
    words = "".join(word.capitalize() for word in name.split("_"))
    return words if words.endswith(("plugin", "Plugin")) else f"{words}Plugin"
