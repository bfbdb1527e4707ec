"""On `sys.path` of processes that load plugins, and so of those that `multiprocessing` spawns.

A spawned process unpickles what it is to run, and looks for the plugin's package. It finds
`_plugins` here, which brings the finder of generations along.
"""

from pathlib import Path

PATH = str(Path(__file__).parent)
