"""How `benana serve` starts gunicorn: with which configuration file and which application."""

import importlib.machinery
import os
from collections.abc import Sequence
from pathlib import Path

from gunicorn.config import Config, get_default_config_file

from app.errors import SettingsError
from app.shipped import shipped_file

GUNICORN_CONF = "gunicorn.conf.py"
APPLICATION = "app.wsgi:configured()"
"""What a configuration file names as `wsgi_app`, else Benana."""


def gunicorn_arguments(arguments: Sequence[str]) -> list[str]:
    """Return gunicorn's command line, made whole where a person left something out.

    The configuration file is the one that the command line names, or GUNICORN_CMD_ARGS, or the
    `gunicorn.conf.py` of the current folder, as with gunicorn itself; without any of these it is
    the one that comes with Benana. As in gunicorn, a file that is found is used as it stands.

    Args:
        arguments: what a person gave. What gunicorn cannot read ends the process with gunicorn's
            own message.

    Raises:
        SettingsError: Benana's package cannot be imported from the current folder.
    """
    _refuse_another_app(Path.cwd())
    configuration = Config(prog="benana serve")
    parser = configuration.parser()
    given = parser.parse_args(arguments)
    inherited = parser.parse_args(configuration.get_cmd_args_from_env())
    complete = list(arguments)
    if not (given.config or inherited.config):
        complete = ["-c", get_default_config_file() or str(shipped_file(GUNICORN_CONF)), *complete]
    return complete if given.args else [*complete, APPLICATION]


def _refuse_another_app(folder: Path) -> None:
    """Look whether gunicorn, which puts the current folder first, would import another `app`.

    Raises:
        SettingsError: it would.
    """
    spec = importlib.machinery.PathFinder.find_spec("app", [str(folder)])
    if spec is None or spec.origin is None:  # a folder that is no package comes last
        return
    if os.path.realpath(spec.origin) != os.path.realpath(Path(__file__).parents[1] / "__init__.py"):
        raise SettingsError(
            f"{spec.origin} would be imported instead of Benana's own package, which is called "
            "`app`, too. Start the server in another folder; BENANA_PLUGINS_DIR, "
            "BENANA_ARTIFACTS_DIR and BENANA_DATA_DIR say where its own folders are."
        )
