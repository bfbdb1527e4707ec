"""Where the two halves meet: the pool, the SQL, the schema and the LISTEN thread."""
