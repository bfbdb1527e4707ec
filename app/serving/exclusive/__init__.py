"""Plugins that one process alone runs: who runs each, and how it comes to another version."""
