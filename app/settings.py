"""Settings, read from the environment once."""

import functools
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from app.errors import SettingsError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
LOOPBACK_NETWORKS: tuple[Network, ...] = (
    ipaddress.ip_network("127.0.0.1"),
    ipaddress.ip_network("::1"),
)


def _read_text(variable: str, text: str | None, default: str | None) -> str | None:
    return text or default


def _read_word(variable: str, text: str | None, default: str | None) -> str | None:
    return (text or "").strip() or default


def _read_token(variable: str, text: str | None, default: str | None) -> str | None:
    token = _read_word(variable, text, default)
    if token and not token.isprintable():
        raise SettingsError(f"{variable} holds a control character; expected one line.")
    return token


def _read_folder(variable: str, text: str | None, default: str) -> Path:
    try:
        return Path(text or default).expanduser().absolute()
    except RuntimeError as error:
        raise SettingsError(f"{variable} is {text!r}: {error}") from None


def _read_count(variable: str, text: str | None, default: int | None, least: int = 1) -> int | None:
    text = (text or "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= 1024):
        expected = f"a whole number from {least} to 1024"
        raise SettingsError(f"{variable} is {text!r}; expected {expected}.")
    return int(text)


_read_count_or_off = functools.partial(_read_count, least=0)


def _read_megabytes(variable: str, text: str | None, default: int) -> int:
    text = (text or "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 256 <= int(text) <= 1_048_576):
        raise SettingsError(
            f"{variable} is {text!r}; expected a whole number of MiB from 256 to 1048576."
        )
    return int(text)


def _read_switch(variable: str, text: str | None, default: bool) -> bool:
    text = (text or "").strip().lower()
    if not text:
        return default
    if text in {"on", "true", "yes", "1"}:
        return True
    if text in {"off", "false", "no", "0"}:
        return False
    raise SettingsError(f"{variable} is {text!r}; expected on or off.")


def _read_names(variable: str, text: str | None, default: frozenset[str]) -> frozenset[str]:
    names = (text or "").replace(",", " ").split()
    return frozenset(name.lower().removesuffix(".") for name in names) or default


def _read_networks(
    variable: str, text: str | None, default: tuple[Network, ...]
) -> tuple[Network, ...]:
    """Read gunicorn's own setting: whose `X-Forwarded-…` headers count; empty is nobody's."""
    if text is None:
        return default
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if "*" in parts:
        parts = ["0.0.0.0/0", "::/0"]
    try:
        return tuple(ipaddress.ip_network(part, strict=False) for part in parts)
    except ValueError as error:
        raise SettingsError(
            f"{variable} is {text[:100]!r} ({error}); expected the addresses or networks "
            "of your proxies with commas between them, or *."
        ) from None


def _read_openness(variable: str, text: str | None, default: bool) -> bool:
    text = (text or "").strip().lower()
    if text not in {"", "token", "open"}:
        raise SettingsError(
            f"{variable} is {text[:40]!r}; expected open (to everybody) or token (to who "
            "sends BENANA_ADMIN_TOKEN, if one is set)."
        )
    return text == "open" if text else default


def _read_bind(variable: str, text: str | None, default: str) -> str:
    bind = text or default
    if bind.startswith("unix:") and len(bind) > len("unix:"):
        return bind
    host, separator, port = bind.rpartition(":")
    number = port.isascii() and port.isdigit() and len(port) <= 5
    if host and separator and number and int(port) < 65536:
        return bind
    raise SettingsError(f"{variable} is {bind!r}; expected host:port or unix:path.")


def _variable(
    name: str, default: Any, read: Callable[[str, str | None, Any], Any], *, secret: bool = False
) -> Any:
    """Return the field of an environment variable.

    Args:
        name: the variable's.
        default: what it is where the variable is not set or empty; it stands nowhere else.
        read: makes the value of the variable's name, its text (None if it is not set) and the
            default.
        secret: whether it is never shown.
    """
    return field(default=default, repr=not secret, metadata={"variable": name, "read": read})


_THREADS = 8


def _connections_of(threads: int) -> int:
    """Return how many database connections a plugin may hold, where nothing is set."""
    return threads // 2 + 2


@dataclass(frozen=True)
class Settings:
    """What the environment says, checked: each variable with its default, which stands here alone.

    Made by `from_environment`, once; then all folders are absolute.

    `database_url` is None for the embedded PostgreSQL; `bind` is `host:port` or `unix:path`, and
    `listening` where the sockets of a running server really are, in the same words;
    with `admin_read_open`, what changes nothing in the admin API needs no token; `trusted_proxies`
    are the addresses whose word on the host that was called counts; `plugin_statement_seconds` is
    None for no limit. `server_url`, `ca_file` and `insecure` are the command's: which server it
    calls, and how it knows that server by.
    """

    plugins_dir: Path = _variable("BENANA_PLUGINS_DIR", "plugins", _read_folder)  # noqa: RUF009
    artifacts_dir: Path = _variable("BENANA_ARTIFACTS_DIR", "bin/plugins", _read_folder)  # noqa: RUF009
    data_dir: Path = _variable("BENANA_DATA_DIR", "var", _read_folder)  # noqa: RUF009
    database_url: str | None = _variable("DATABASE_URL", None, _read_text, secret=True)
    listen_database_url: str | None = _variable(
        "BENANA_LISTEN_DATABASE_URL", None, _read_text, secret=True
    )
    bind: str = _variable("BENANA_BIND", "127.0.0.1:9999", _read_bind)
    listening: tuple[str, ...] = ()
    workers: int = _variable("WEB_CONCURRENCY", 2, _read_count)
    threads: int = _variable("BENANA_THREADS", _THREADS, _read_count)
    admin_token: str | None = _variable("BENANA_ADMIN_TOKEN", None, _read_token, secret=True)
    admin_read_open: bool = _variable("BENANA_ADMIN_READ", False, _read_openness)
    admin_hosts: frozenset[str] = _variable("BENANA_ADMIN_HOSTS", frozenset(), _read_names)
    trusted_proxies: tuple[Network, ...] = _variable(
        "FORWARDED_ALLOW_IPS", LOOPBACK_NETWORKS, _read_networks
    )
    watch: bool = _variable("BENANA_WATCH", True, _read_switch)
    heartbeat_seconds: int = _variable("BENANA_HEARTBEAT_SECONDS", 5, _read_count)
    drain_seconds: int = _variable("BENANA_DRAIN_SECONDS", 30, _read_count)
    round_drain_seconds: int = _variable("BENANA_ROUND_DRAIN_SECONDS", 900, _read_count)
    round_draining: int | None = _variable("BENANA_ROUND_DRAINING", None, _read_count)
    max_new_failures: int = _variable("BENANA_MAX_NEW_FAILURES", 20, _read_count_or_off)
    handover_seconds: int = _variable("BENANA_HANDOVER_SECONDS", 5, _read_count)
    max_leaked: int = _variable("BENANA_MAX_LEAKED_GENERATIONS", 100, _read_count)
    lock_seconds: int = _variable("BENANA_LOCK_SECONDS", 2, _read_count)
    statement_seconds: int = _variable("BENANA_STATEMENT_SECONDS", 30, _read_count)
    plugin_connections: int = _variable(
        "BENANA_PLUGIN_CONNECTIONS", _connections_of(_THREADS), _read_count
    )
    plugin_statement_seconds: int | None = _variable(
        "BENANA_PLUGIN_STATEMENT_SECONDS", None, _read_count
    )
    max_source_mb: int = _variable("BENANA_MAX_SOURCE_MB", 4, _read_count)
    trial_memory_mb: int = _variable("BENANA_TRIAL_MEMORY_MB", 3072, _read_megabytes)
    server_url: str | None = _variable("BENANA_URL", None, _read_word)
    ca_file: str | None = _variable("BENANA_CA", None, _read_text)
    insecure: bool = _variable("BENANA_INSECURE", False, _read_switch)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Raises:
            SettingsError: a variable holds what cannot be used; the message names it.
        """
        defaults = {known.name: known.default for known in fields(cls) if known.metadata}
        values: dict[str, Any] = {}
        for known in fields(cls):
            if known.metadata:
                variable, read = known.metadata["variable"], known.metadata["read"]
                if known.name == "plugin_connections":  # `threads` stands before it
                    defaults[known.name] = _connections_of(values["threads"])
                values[known.name] = read(variable, environ.get(variable), defaults[known.name])
        return cls(**values)

    @property
    def known_hosts(self) -> frozenset[str]:
        """The names, in lower case, under which this server may be called beside addresses."""
        bound = self.bind.rpartition(":")[0].strip("[]")
        own = {name.lower().removesuffix(".") for name in (bound, socket.gethostname())}
        return LOOPBACK_HOSTS | self.admin_hosts | own

    @property
    def bind_is_local(self) -> bool:
        """Whether only this machine can reach the server: loopback addresses or unix sockets.

        Where it listens already, its sockets say so, and not what was configured.
        """
        return all(map(_is_local, self.listening or (self.bind,)))


def _is_local(bind: str) -> bool:
    if bind.startswith("unix:"):
        return True
    host = bind.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in LOOPBACK_HOSTS
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
