"""Powertable: typed tables in PostgreSQL, over HTTP."""

from app.plugin import PluginContext, PluginInterface, PluginMetadata, PluginServer

from .answers import ImportResult
from .api import TableApi
from .importing import CsvApi
from .progress import Imports
from .settings import Settings
from .store import TableStore

ERRORS = {
    400: "The query string or the body is no such one.",
    404: "There is no such table, or no such row.",
    422: "Values do not fit.",
}


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
        table = server.group("/powertable/{table}", responses=ERRORS)
        table.put("", api.create_table, status=201, responses={409: "The name is taken."})
        table.get("", api.get_table)
        table.delete("", api.drop_table)
        table.get("/rows", api.list_rows)
        table.post("/rows", api.add_rows, status=201)
        table.get("/rows/{row_id:int}", api.get_row)
        table.patch("/rows/{row_id:int}", api.change_row)
        table.delete("/rows/{row_id:int}", api.delete_row)
        table.get("/aggregate", api.aggregate)
        table.post("/import", csv.import_csv, responses={201: ImportResult})
        table.get("/import", csv.list_imports)
        table.get("/export", csv.export_csv)

    def cleanup(self, context: PluginContext) -> None:
        """Do nothing: connections go back after each call, temporary files after each answer."""


def new_plugin() -> PluginInterface:
    return Powertable()
