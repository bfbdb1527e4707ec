"""Benana: a live plugin server for Python."""
