"""Falcon's example look: of its app.py, the lines of `create_app` moved."""

from app.plugin import PluginMetadata

from .images import Collection
from .images import ImageStore
from .images import Item


class Look:
    def initialize(self, context):
        self.image_store = ImageStore(context.data_dir)

    def get_metadata(self):
        return PluginMetadata('images', '1.0')

    def register_routes(self, server):
        server.add_route('/images', Collection(self.image_store))
        server.add_route('/images/{name}', Item(self.image_store))

    def cleanup(self, context):
        pass


def new_plugin():
    return Look()
