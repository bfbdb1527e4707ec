"""The package of all plugins' packages, in a process that a plugin has spawned."""

from app.package.spawned_generations import install

install()
