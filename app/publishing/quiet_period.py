"""How long an edit waits before what is found in its folder counts; all times are in seconds."""

QUIET_SECONDS = 0.02
"""How long a folder has to be quiet before what is found in it counts."""

MAX_QUIET_SECONDS = 0.5
"""How long it is waited for a writer to close its file, at most."""

RESTLESS_SECONDS = 2.0
"""What was superseded for so long, each time it was looked at, counts as changing all the time."""

TICK_SECONDS = 0.01
"""How much older than it is a change may seem: file systems take the time of the kernel's tick."""

CALM_SECONDS = 0.3
"""A folder that was left alone for so long is looked at at once: it is no storm of edits."""

SAVE_SECONDS = 0.003
"""What the statements of a publish take: they begin so much before the end of the quiet period,
and not earlier, because of the locks that they take."""
