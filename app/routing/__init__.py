"""The immutable route table, the request in its table, and grace periods."""
