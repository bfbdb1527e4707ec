"""Which server the command calls, and how it knows it by: URLs and TLS."""

import shutil
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.cli.target import Target
from app.errors import SettingsError
from app.settings import Settings
from tests.support.certificates import make_certificate
from tests.support.fake_admin_api import Api, Silence, plugin

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="it takes openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "DNS:localhost,IP:127.0.0.1")


class Quiet(socketserver.TCPServer):
    def handle_error(self, *_: object) -> None:
        """A client that does not trust us hangs up: no news."""


@contextmanager
def over_tls(api: Api, pair: tuple[Path, Path]) -> Iterator[int]:
    """Serve an API over TLS; give its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)

    class Secure(Quiet):
        def get_request(self):
            connection, address = super().get_request()
            return context.wrap_socket(connection, server_side=True), address

    with api.serve(Secure, ("127.0.0.1", 0)) as (_, port):
        yield port


@pytest.fixture
def secure(certificate) -> Iterator[tuple[Api, int]]:
    api = Api()
    api.answers["GET /plugins"] = (200, [plugin("shop")])
    with over_tls(api, certificate) as port:
        yield api, port


@needs_openssl
@pytest.mark.parametrize("way", ["options", "settings", "insecure", "insecure setting", "both"])
def test_a_server_with_tls_is_called(run, secure, certificate, way):
    _, port = secure
    options, environ = {
        "options": ((f"--server=https://127.0.0.1:{port}", f"--ca={certificate[0]}"), {}),
        "settings": (
            (),
            {"BENANA_URL": f"https://localhost:{port}/", "BENANA_CA": str(certificate[0])},
        ),
        "insecure": (("--insecure",), {"BENANA_URL": f"https://127.0.0.1:{port}"}),
        "insecure setting": (
            ("--server", f"https://127.0.0.1:{port}"),
            {"BENANA_INSECURE": "on"},
        ),
        "both": (
            ("--server", f"https://localhost:{port}", "--ca", str(certificate[0])),
            {"BENANA_URL": "https://nowhere.example", "BENANA_CA": "/nowhere"},
        ),
    }[way]
    result = run("list", *options, **environ)
    assert result.exit_code == 0, result.output
    assert "shop" in result.stdout


@needs_openssl
@pytest.mark.parametrize("command", ["list", "reload x", "toggle x", "new x"])
def test_every_command_that_calls_a_server_takes_it(run, secure, certificate, command):
    api, port = secure
    run(*command.split(), "--server", f"https://localhost:{port}", "--ca", str(certificate[0]))
    assert api.asked


@needs_openssl
def test_a_certificate_that_is_not_trusted_is_one_sentence(run, secure, tmp_path):
    api, port = secure
    other, _ = make_certificate(tmp_path / "other", "DNS:localhost")
    for options in ((), ("--ca", str(other))):
        result = run("list", "--server", f"https://localhost:{port}", *options)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"The certificate of https://localhost:{port} is not tru")
        assert "--ca FILE or BENANA_CA" in result.stderr
        assert "--insecure" in result.stderr
    assert not api.asked, "and no token was sent to it"


@needs_openssl
def test_a_certificate_of_another_name_is_not_trusted(run, tmp_path):
    pair = make_certificate(tmp_path / "other", "DNS:plugins.example")
    with over_tls(Api(), pair) as port:
        server = ("--server", f"https://127.0.0.1:{port}")
        result = run("list", *server, "--ca", str(pair[0]))
        assert "is not trusted" in result.stderr
        assert run("list", *server, "--insecure").exit_code == 0


@needs_openssl
def test_the_other_protocol_is_one_sentence(run, secure):
    _, port = secure
    result = run("list", "--server", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "if it speaks TLS, call it by https://" in result.stderr
    with Quiet(("127.0.0.1", 0), Silence) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        result = run("list", "--server", f"https://127.0.0.1:{server.server_address[1]}")
        thread.join()
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    plain = Api()
    with plain.serve(Quiet, ("127.0.0.1", 0)) as (_, port):
        result = run("list", "--server", f"https://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "does not speak TLS" in result.stderr


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_is_one_sentence(run, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    result = run("list", "--server", "https://localhost:1", "--ca", str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"The CA file {path} cannot be used")


def test_a_server_below_a_path_is_called_there(run):
    api = Api()
    with api.serve(Quiet, ("127.0.0.1", 0)) as (_, port):
        assert run("list", "--server", f"127.0.0.1:{port}/benana/").exit_code == 0
    assert [path for _, path, _ in api.asked] == [
        "/benana/plugins",
        "/benana/plugins?status=failed",
        "/benana/workers",
    ]


def test_where_nothing_answers_it_is_said_which_setting_says_where(run, nowhere):
    result = run("list", "--server", f"http://{nowhere}")
    assert f"Nothing answers at http://{nowhere}" in result.stderr
    assert "give --server or set BENANA_URL" in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h",
        "https://",
        "https://me:secret@h",
        "https://h?token=secret",
        "https://h#secret",
        "https://h:port",
        "https://h:99999",
        "https://h\nX: secret",
        "https://h/a b",
        "unix:",
        "://h",
    ],
)
def test_a_url_that_cannot_be_called_is_refused_and_not_repeated(run, url):
    result = run("list", "--server", url)
    assert result.exit_code == 2
    assert result.stderr.startswith("The server's URL (--server, BENANA_URL)")
    assert "secret" not in result.stderr


@pytest.mark.parametrize(
    ("environ", "curl"),
    [
        ({}, "curl http://127.0.0.1:9999"),
        ({"BENANA_BIND": "unix:/x"}, "curl --unix-socket /x http://localhost"),
        ({"BENANA_URL": "unix:/y"}, "curl --unix-socket /y http://localhost"),
        ({"BENANA_URL": "h:80"}, "curl http://h:80"),
        ({"BENANA_URL": "https://h", "BENANA_CA": "/ca"}, "curl --cacert /ca https://h"),
        ({"BENANA_URL": "https://h", "BENANA_INSECURE": "1"}, "curl --insecure https://h"),
        ({"BENANA_URL": "https://[::1]:1/p/"}, "curl https://[::1]:1/p"),
    ],
)
def test_a_call_is_shown_as_curl_makes_it(environ, curl):
    assert Target.of(Settings.from_environment(environ)).curl == curl


def test_the_server_itself_does_not_look_at_the_commands_url():
    settings = Settings.from_environment({"BENANA_URL": "nonsense://"})
    with pytest.raises(SettingsError):
        Target.of(settings)


@pytest.mark.parametrize("host", ["ex..ample", ".example", f"{'a' * 70}.example"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_that_cannot_be_one_is_one_sentence(run, scheme, host):
    result = run("list", "--server", f"{scheme}://{host}")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{scheme}://{host} names a host that cannot be one")
    assert result.stderr.count("\n") == 1
