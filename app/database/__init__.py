"""Where the two halves meet: the pool, the SQL, the LISTEN thread, the embedded server."""
