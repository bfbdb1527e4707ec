"""Which plugin a running function belongs to, as its frame alone tells it."""

from dataclasses import dataclass
from types import FrameType

from app.libraries import generation_of


@dataclass(frozen=True, slots=True)
class PluginFrame:
    """A frame of a plugin's code.

    `generation` is the name of the generation's package; `place` is the file within the plugin's
    folder and the line that it runs, as `main.py:14`.
    """

    plugin: str
    generation: str
    place: str


def plugin_frame(frame: FrameType) -> PluginFrame | None:
    """Return whose code a frame runs; None if it is no plugin's.

    It asks the frame alone, and no importer: of a generation that is being collected, everything
    else may be gone already.
    """
    names = frame.f_globals
    module = names.get("__name__") if type(names) is dict else None
    generation = generation_of(module)
    if generation is None:
        return None
    path = frame.f_code.co_filename.split("/")
    depth = str(module).count(".") - generation.count(".") + (path[-1] == "__init__.py")
    file = "/".join(path[-max(1, depth) :])
    return PluginFrame(generation.split(".")[1], generation, f"{file}:{frame.f_lineno}")


def innermost_plugin_frame(
    frame: FrameType | None, within: int | None = None
) -> PluginFrame | None:
    """Return the innermost frame of a plugin in a stack, None if there is none.

    Args:
        frame: the innermost frame of the stack.
        within: the `id` of the frame at which to stop; None to look at the whole stack.
    """
    while frame is not None and id(frame) != within:
        found = plugin_frame(frame)
        if found is not None:
            return found
        frame = frame.f_back
    return None
