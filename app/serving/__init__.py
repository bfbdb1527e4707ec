"""A row becomes live routes."""
