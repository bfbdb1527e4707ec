"""Which of Benana's hooks gunicorn's configuration lacks."""

import inspect
from typing import Any

IMPORT_LINE = "from app.hooks import *"
HOOKS = (
    "on_starting",
    "on_reload",
    "when_ready",
    "pre_exec",
    "post_worker_init",
    "worker_exit",
    "on_exit",
)
"""Each a function of `app.hooks`, by gunicorn's name for it."""

_OURS, _GUNICORNS = "app.hooks", "gunicorn.config"


def faulty_hooks(configuration: Any) -> dict[str, str]:
    """Return what is the matter with each hook that gunicorn does not call as ours.

    One that a configuration file puts in the place of ours, and that says by `functools.wraps`
    that it calls it, is as good.

    Args:
        configuration: gunicorn's settings.
    """
    faults = {}
    for name in HOOKS:
        hook = inspect.unwrap(getattr(configuration, name))
        if (hook.__module__, hook.__name__) == (_OURS, name):
            continue
        if hook.__module__ == _GUNICORNS:
            faults[name] = "missing"
        else:
            code = getattr(hook, "__code__", None)
            place = f" by {code.co_filename}:{code.co_firstlineno}" if code else ""
            faults[name] = f"overwritten{place}"
    return faults


def what_to_mend(faults: dict[str, str]) -> str:
    """Return which hooks are not called, and what a configuration needs for it."""
    listed = ", ".join(f"{name} ({fault})" for name, fault in faults.items())
    advice = f"Put the line `{IMPORT_LINE}` into gunicorn's configuration file"
    for name, fault in faults.items():
        if fault != "missing":
            advice += (
                f"; its own {name} has to call hooks.{name}, and to say so: "
                f"@functools.wraps(hooks.{name})"
            )
            break
    return f"hooks of Benana are not called: {listed}. {advice}"


def sentence(faults: dict[str, str]) -> str:
    """Return what comes of a configuration without our hooks, and what mends it."""
    return f"Nothing is served, because {what_to_mend(faults)}."
