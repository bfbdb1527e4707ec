"""A server with `--certfile`: what the log says, and the command."""

import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until


def benana(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("benana")), *arguments],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("openssl") is None, reason="it takes openssl")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_server_with_tls_is_named_and_called_so(make_server: MakeServer, host: str) -> None:
    server = make_server()
    names = "DNS:localhost,IP:127.0.0.1,IP:::1"
    certificate, key = make_certificate(server.home / "tls", names)
    bind = f"{host}:{server.port}"
    server.environment["BENANA_BIND"] = bind
    server.arguments = ["--certfile", str(certificate), "--keyfile", str(key)]
    server.start(wait=False)
    url = f"https://{bind}"
    context = ssl.create_default_context(cafile=str(certificate))

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/whoami", context=context, timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    wait_until(answers, "it serves", 30.0)
    assert f"Benana serves {url} (plugins in" in server.log()
    trusted = ("--server", url, "--ca", str(certificate))
    assert "whoami" in benana(server, "list", *trusted).stdout
    assert "reloading" in benana(server, "reload", "whoami", *trusted).stdout
    assert "inactive" in benana(server, "toggle", "whoami", *trusted).stdout
    assert "active" in benana(server, "toggle", "whoami", "--server", url, "--insecure").stdout
    assert "is not trusted" in benana(server, "list", "--server", url).stderr
    plain = benana(server, "list")
    assert plain.returncode == 1
    assert "if it speaks TLS, call it by https://" in plain.stderr
    new = benana(server, "new", "fresh", *trusted)
    assert f"The server at {url} serves it:" in new.stdout
    assert f"curl --cacert {certificate} {url}/fresh" in new.stdout
