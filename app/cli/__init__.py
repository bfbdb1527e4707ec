"""The `benana` command: what an operator does, from a shell."""
