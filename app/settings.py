"""Settings, read from the environment once."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from app.errors import SettingsError

T = TypeVar("T", int, None)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
LOOPBACK_NETWORKS: tuple[Network, ...] = (
    ipaddress.ip_network("127.0.0.1"),
    ipaddress.ip_network("::1"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, checked. All folders are absolute.

    `database_url` is None for the embedded PostgreSQL; `bind` is `host:port` or `unix:path`, and
    `listening` where the sockets of a running server really are, in the same words;
    with `admin_read_open`, what changes nothing in the admin API needs no token; `trusted_proxies`
    are the addresses whose word on the host that was called counts; `plugin_statement_seconds` is
    None for no limit. `server_url`, `ca_file` and `insecure` are the command's: which server it
    calls, and how it knows that server by.
    """

    plugins_dir: Path
    artifacts_dir: Path
    data_dir: Path
    database_url: str | None = field(default=None, repr=False)
    listen_database_url: str | None = field(default=None, repr=False)
    bind: str = "127.0.0.1:9999"
    listening: tuple[str, ...] = ()
    workers: int = 2
    threads: int = 8
    admin_token: str | None = field(default=None, repr=False)
    admin_read_open: bool = False
    admin_hosts: frozenset[str] = frozenset()
    trusted_proxies: tuple[Network, ...] = LOOPBACK_NETWORKS
    watch: bool = True
    heartbeat_seconds: int = 5
    drain_seconds: int = 30
    max_leaked: int = 100
    lock_seconds: int = 2
    statement_seconds: int = 30
    plugin_connections: int = 6
    plugin_statement_seconds: int | None = None
    max_source_mb: int = 4
    server_url: str | None = None
    ca_file: str | None = None
    insecure: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the settings.

        Raises:
            SettingsError: a variable holds what cannot be used; the message names it.
        """
        bind = environ.get("BENANA_BIND", "") or "127.0.0.1:9999"
        _check_bind(bind)
        token = environ.get("BENANA_ADMIN_TOKEN", "").strip() or None
        if token and not token.isprintable():
            raise SettingsError("BENANA_ADMIN_TOKEN holds a control character; expected one line.")
        hosts = environ.get("BENANA_ADMIN_HOSTS", "").replace(",", " ").split()
        threads = _count(environ, "BENANA_THREADS", 8)
        return cls(
            plugins_dir=_folder(environ, "BENANA_PLUGINS_DIR", "plugins"),
            artifacts_dir=_folder(environ, "BENANA_ARTIFACTS_DIR", "bin/plugins"),
            data_dir=_folder(environ, "BENANA_DATA_DIR", "var"),
            database_url=environ.get("DATABASE_URL") or None,
            listen_database_url=environ.get("BENANA_LISTEN_DATABASE_URL") or None,
            bind=bind,
            workers=_count(environ, "WEB_CONCURRENCY", 2),
            threads=threads,
            admin_token=token,
            admin_read_open=_read_is_open(environ),
            admin_hosts=frozenset(host.lower().removesuffix(".") for host in hosts),
            trusted_proxies=_networks(environ),
            watch=_switch(environ, "BENANA_WATCH", default=True),
            heartbeat_seconds=_count(environ, "BENANA_HEARTBEAT_SECONDS", 5),
            drain_seconds=_count(environ, "BENANA_DRAIN_SECONDS", 30),
            max_leaked=_count(environ, "BENANA_MAX_LEAKED_GENERATIONS", 100),
            lock_seconds=_count(environ, "BENANA_LOCK_SECONDS", 2),
            statement_seconds=_count(environ, "BENANA_STATEMENT_SECONDS", 30),
            plugin_connections=_count(environ, "BENANA_PLUGIN_CONNECTIONS", threads // 2 + 2),
            plugin_statement_seconds=_count(environ, "BENANA_PLUGIN_STATEMENT_SECONDS", None),
            max_source_mb=_count(environ, "BENANA_MAX_SOURCE_MB", 4),
            server_url=environ.get("BENANA_URL", "").strip() or None,
            ca_file=environ.get("BENANA_CA") or None,
            insecure=_switch(environ, "BENANA_INSECURE", default=False),
        )

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


def _folder(environ: Mapping[str, str], variable: str, default: str) -> Path:
    try:
        return Path(environ.get(variable) or default).expanduser().absolute()
    except RuntimeError as error:
        raise SettingsError(f"{variable} is {environ[variable]!r}: {error}") from None


def _count(environ: Mapping[str, str], variable: str, default: T) -> int | T:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= 1024):
        raise SettingsError(f"{variable} is {text!r}; expected a whole number from 1 to 1024.")
    return int(text)


def _switch(environ: Mapping[str, str], variable: str, *, default: bool) -> bool:
    text = environ.get(variable, "").strip().lower()
    if not text:
        return default
    if text in {"on", "true", "yes", "1"}:
        return True
    if text in {"off", "false", "no", "0"}:
        return False
    raise SettingsError(f"{variable} is {text!r}; expected on or off.")


def _networks(environ: Mapping[str, str]) -> tuple[Network, ...]:
    """Return gunicorn's own setting: whose `X-Forwarded-…` headers count."""
    text = environ.get("FORWARDED_ALLOW_IPS")
    if text is None:
        return LOOPBACK_NETWORKS
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if "*" in parts:
        parts = ["0.0.0.0/0", "::/0"]
    try:
        return tuple(ipaddress.ip_network(part, strict=False) for part in parts)
    except ValueError as error:
        raise SettingsError(
            f"FORWARDED_ALLOW_IPS is {text[:100]!r} ({error}); expected the addresses or networks "
            "of your proxies with commas between them, or *."
        ) from None


def _read_is_open(environ: Mapping[str, str]) -> bool:
    text = environ.get("BENANA_ADMIN_READ", "").strip().lower()
    if text not in {"", "token", "open"}:
        raise SettingsError(
            f"BENANA_ADMIN_READ is {text[:40]!r}; expected open (to everybody) or token (to who "
            "sends BENANA_ADMIN_TOKEN, if one is set)."
        )
    return text == "open"


def _check_bind(bind: str) -> None:
    if bind.startswith("unix:") and len(bind) > len("unix:"):
        return
    host, separator, port = bind.rpartition(":")
    number = port.isascii() and port.isdigit() and len(port) <= 5
    if host and separator and number and int(port) < 65536:
        return
    raise SettingsError(f"BENANA_BIND is {bind!r}; expected host:port or unix:path.")
