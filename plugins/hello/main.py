"""The smallest whole plugin: one resource, two methods."""

from app.plugin import PluginContext, PluginInterface, PluginMetadata, PluginServer


class Hello(PluginInterface):
    def initialize(self, context: PluginContext) -> None: ...

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(
            name="hello",
            version="1.0.0",
            description="Says hello, and gives back what it is sent",
            author="Benana Team",
        )

    def register_routes(self, server: PluginServer) -> None:
        server.get("/hello", self.handle_get)
        server.post("/hello", self.handle_post)

    def cleanup(self, context: PluginContext) -> None: ...

    def handle_get(self) -> dict[str, str]:
        return {"message": "Hello from Benana!"}

    def handle_post(self, body: dict[str, object]) -> dict[str, object]:
        return {"received": body}


def new_plugin() -> PluginInterface:
    return Hello()
