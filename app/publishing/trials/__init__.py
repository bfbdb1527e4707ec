"""A version is tried, and rehearsed, in processes that may die."""
