"""The Falcon application."""

from app.admin import problems
from app.admin.guard import Guard
from app.admin.openapi.document import LiveDocuments
from app.admin.routes import admin_routes
from app.admin.welcome import welcome_at_root
from app.loading.routes import SERVER
from app.manager import PluginManager
from app.routing.application import LiveApp
from app.settings import Settings


class BenanaApp(LiveApp):
    """The application and the manager that fills its route table."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        problems.install(self)
        welcome_at_root(self)
        self.manager = PluginManager(settings, self)
        documents = LiveDocuments(
            self, self.manager.metadata_of, has_token=bool(settings.admin_token)
        )
        builder = self.table.builder()
        builder.add(SERVER, admin_routes(self.manager, Guard(settings), documents))
        self.swap(builder.build())


def create_app(settings: Settings) -> BenanaApp:
    """Make the application; `app.manager.start` then fills it.

    Raises:
        SettingsError: the database's URL cannot be read.
    """
    return BenanaApp(settings)
