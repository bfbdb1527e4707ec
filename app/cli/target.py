"""Where the command finds the server that it calls: a URL, a unix socket, TLS."""

import http.client
import socket
import ssl
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from app.errors import SettingsError
from app.settings import Settings

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to call, not where to bind
_EXPECTED = "expected https://HOST:PORT, http://HOST:PORT or unix:PATH"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class Target:
    """One server: `url` without a slash at its end; `socket_path` is empty for TCP."""

    url: str
    socket_path: str = ""
    named: bool = False
    """Whether it was named as such, and not guessed from where a server here would listen."""
    ca_file: str | None = None
    insecure: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the server that the settings name, else the one that they bind.

        Raises:
            SettingsError: the URL cannot be read.
        """
        text = settings.server_url
        if text is None:
            return cls(*address_of(settings.bind))
        if text.startswith("unix:"):
            url, path = address_of(text)
            return cls(url if path else _checked(text), path, named=True)
        url = _checked(text if "://" in text else f"http://{text}")
        return cls(url, "", named=True, ca_file=settings.ca_file, insecure=settings.insecure)

    @property
    def shown(self) -> str:
        """Its name for a person."""
        return f"unix:{self.socket_path}" if self.socket_path else self.url

    @property
    def advice(self) -> str:
        """Which setting says where it is."""
        return "give --server or set BENANA_URL" if self.named else "set BENANA_BIND or BENANA_URL"

    @property
    def curl(self) -> str:
        """The beginning of a call by curl."""
        if self.socket_path:
            return f"curl --unix-socket {self.socket_path} {self.url}"
        if self.url.startswith("https:") and self.insecure:
            return f"curl --insecure {self.url}"
        if self.url.startswith("https:") and self.ca_file:
            return f"curl --cacert {self.ca_file} {self.url}"
        return f"curl {self.url}"

    @property
    def prefix(self) -> str:
        """What stands before each path, where a proxy has the server below a path of its own."""
        return urlsplit(self.url).path

    def connection(self, seconds: float) -> http.client.HTTPConnection:
        """Return a connection that is not opened yet.

        Raises:
            SettingsError: the file with the CA cannot be used.
        """
        if self.socket_path:
            return _UnixConnection(self.socket_path, seconds)
        parts = urlsplit(self.url)
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.netloc, timeout=seconds)
        return http.client.HTTPSConnection(parts.netloc, timeout=seconds, context=self._context())

    def _context(self) -> ssl.SSLContext:
        if self.insecure:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            wrong = isinstance(error, ssl.SSLError)  # whose own words are OpenSSL's
            reason = "it holds no certificate" if wrong else error.strerror
            raise SettingsError(
                f"The CA file {self.ca_file} cannot be used ({reason}); expected certificates in "
                "PEM format (--ca, BENANA_CA)."
            ) from None


def address_of(bind: str) -> tuple[str, str]:
    """Return where a server that binds so can be called from this machine.

    Args:
        bind: `host:port` or `unix:path`, as in `Settings`.

    Returns:
        The base URL and the path of the unix socket, which is empty for TCP.
    """
    if bind.startswith("unix:"):
        # As gunicorn reads it: `unix:path` or `unix://path`.
        return "http://localhost", bind.removeprefix("unix:").removeprefix("//")
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    host = _ANY_HOST.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", ""


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise SettingsError(f"The server's URL (--server, BENANA_URL) cannot be read; {_EXPECTED}.")
    if "@" in parts.netloc or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise SettingsError(
            f"The server's URL (--server, BENANA_URL) holds more than a host and a path; "
            f"{_EXPECTED}. A token is given by BENANA_ADMIN_TOKEN."
        )
    return url.rstrip("/")
