"""Calls of any address, where there is no `Server` to ask."""

import urllib.error
import urllib.request


def status_of(url: str) -> int | None:
    """GET an address; return its status, None if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


def text_of(url: str) -> str:
    """GET an address; return its body, whatever the status is."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()
