"""Cursors whose statements go through a method of their connection."""

import functools
from typing import Any


class _RoutedCursor:
    """Goes before a cursor's class: each statement is run by `connection.run`."""

    connection: Any

    def execute(self, query: Any, vars: Any = None) -> Any:  # noqa: A002 - psycopg2's name
        return self.connection.run(super().execute, query, vars)  # type: ignore[misc]

    def executemany(self, query: Any, vars_list: Any) -> Any:
        return self.connection.run(super().executemany, query, vars_list)  # type: ignore[misc]

    def callproc(self, procname: Any, *args: Any) -> Any:
        return self.connection.run(super().callproc, procname, *args)  # type: ignore[misc]

    def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(super().copy_expert, **kwargs)  # type: ignore[misc]
        return self.connection.run(call, sql, *args)

    def copy_from(self, file: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(super().copy_from, **kwargs)  # type: ignore[misc]
        return self.connection.run(call, file, *args)

    def copy_to(self, file: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(super().copy_to, **kwargs)  # type: ignore[misc]
        return self.connection.run(call, file, *args)


@functools.cache
def routed(factory: type) -> type:
    """Return a cursor class of psycopg2 whose statements are run by its connection.

    Args:
        factory: the class; its connection has `run(function, query, *arguments)`, which calls the
            function with the rest.
    """
    return type(factory.__name__, (_RoutedCursor, factory), {})
