"""A source folder becomes a row."""
