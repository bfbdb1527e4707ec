"""The archive of a plugin: its format, its store, and its import from memory."""
