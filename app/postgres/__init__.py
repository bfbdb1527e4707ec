"""The PostgreSQL that comes along: server, supervisor, host, processes."""
