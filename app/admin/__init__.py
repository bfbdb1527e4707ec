"""What an operator sees: the REST controller, problem answers, health."""
