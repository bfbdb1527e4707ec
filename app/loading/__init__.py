"""An archive becomes a loaded plugin: import, contract, context, registration, handlers."""
