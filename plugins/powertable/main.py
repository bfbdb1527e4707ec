"""Powertable: typed tables in PostgreSQL, over HTTP."""

from app.plugin import PluginContext, PluginInterface, PluginMetadata, PluginServer

from .api import TableApi
from .importing import CsvApi
from .progress import Imports
from .settings import Settings
from .store import TableStore


class Powertable(PluginInterface):
    def initialize(self, context: PluginContext) -> None:
        """Make the schema, and the table of imports in it.

        Raises:
            ValueError: a value of `config` cannot be used; the message names it.
        """
        settings = Settings.from_config(context.config)
        store = TableStore(context.database, settings.schema)
        imports = Imports(store)
        store.create_schema(imports.create_table)
        self._api = TableApi(store, settings)
        self._csv = CsvApi(store, imports, settings, context.data_dir)

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(
            name="powertable",
            version="0.1.0",
            description="A plugin for creating powerful tables",
            author="Benana Team",
        )

    def register_routes(self, server: PluginServer) -> None:
        api, csv = self._api, self._csv
        server.get("/powertable", api.list_tables)
        server.put("/powertable/{table}", api.create_table)
        server.get("/powertable/{table}", api.get_table)
        server.delete("/powertable/{table}", api.drop_table)
        server.get("/powertable/{table}/rows", api.list_rows)
        server.post("/powertable/{table}/rows", api.add_rows)
        server.get("/powertable/{table}/rows/{row_id:int}", api.get_row)
        server.patch("/powertable/{table}/rows/{row_id:int}", api.change_row)
        server.delete("/powertable/{table}/rows/{row_id:int}", api.delete_row)
        server.get("/powertable/{table}/aggregate", api.aggregate)
        server.post("/powertable/{table}/import", csv.import_csv)
        server.get("/powertable/{table}/import", csv.list_imports)
        server.get("/powertable/{table}/export", csv.export_csv)

    def cleanup(self, context: PluginContext) -> None:
        """Do nothing: connections go back after each call, temporary files after each answer."""


def new_plugin() -> PluginInterface:
    return Powertable()
