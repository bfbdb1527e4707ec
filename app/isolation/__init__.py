"""What a plugin needs that runs in one process while others take its requests."""
