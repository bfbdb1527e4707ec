"""What `deploy/` and its page name is there: settings, paths, ports, routes of health checks."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import webtest
import yaml

from app.cli.commands import main
from app.server import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deploying.md").read_text()
FILES = [*sorted(DEPLOY.iterdir()), ROOT / "docs" / "deploying.md"]

REAL = set(re.findall(r'"([A-Z][A-Z_]+)"', (ROOT / "app" / "settings.py").read_text()))
NOT_OURS = {"PGPASSWORD", "PATH", "PYTHONUNBUFFERED"}  # libpq's, the shell's, Python's

DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
NGINX = (DEPLOY / "nginx.conf").read_text()
SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
OBJECTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
DEPLOYMENTS = {o["metadata"]["name"]: o["spec"] for o in OBJECTS if o["kind"] == "Deployment"}
PODS = {name: spec["template"]["spec"] for name, spec in DEPLOYMENTS.items()}
CONTAINERS = {name: pod["containers"][0] for name, pod in PODS.items()}


def instructions(word: str) -> list[str]:
    """Return what stands behind an instruction of the Dockerfile, each time."""
    return re.findall(rf"^{word} +(.*)$", DOCKERFILE, re.MULTILINE)


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(instructions("ENV"))))


def compose_environment() -> dict[str, str]:
    """Return what the service gets where a person has given only what must be given."""
    given = SERVICES["benana"]["environment"]
    text = {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, value in given.items()}
    return {key: re.sub(r"\$\{.*?\}", "given", value) for key, value in text.items()}


def pod_environment(name: str) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in CONTAINERS[name]["env"]}


ENVIRONMENTS = {
    "Dockerfile": image_environment(),
    "compose.yaml": compose_environment(),
    **{f"kubernetes.yaml, {name}": pod_environment(name) for name in PODS},
}


@pytest.fixture(scope="module")
def client() -> webtest.TestApp:
    """A server that was not started: it knows its own routes."""
    environment = {"DATABASE_URL": "postgresql://localhost/", "BENANA_PLUGINS_DIR": "/nowhere"}
    return webtest.TestApp(create_app(Settings.from_environment(environment)))


def assert_route(client: webtest.TestApp, path: str) -> None:
    assert path.startswith("/health/")
    answer = client.get(path, expect_errors=True)
    assert answer.status_int in {200, 503}, f"{path} is no route"


# --- all of it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_that_is_named_is_one(path: Path) -> None:
    named = set(re.findall(r"\bBENANA_[A-Z_]+\b", path.read_text()))
    assert named <= REAL, named - REAL


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_every_environment_can_be_read(where: str) -> None:
    environment = ENVIRONMENTS[where]
    assert set(environment) <= REAL | NOT_OURS
    settings = Settings.from_environment({**image_environment(), **environment})
    assert settings.bind == "0.0.0.0:9999"
    assert not settings.bind_is_local, "so admin writes want the token"


def test_the_page_explains_every_file() -> None:
    targets = {(ROOT / "docs" / path).resolve() for path in re.findall(r"\]\(([^)#]+)", PAGE)}
    assert set(DEPLOY.iterdir()) - targets == {DEPLOY / "Dockerfile.dockerignore"}


# --- Dockerfile ----------------------------------------------------------------------------------


def copied() -> set[str]:
    """Return what the image's first stage takes out of the checkout."""
    lines = [line for line in instructions("COPY") if "--from" not in line]
    return {name for line in lines for name in line.split()[:-1]}


def test_what_the_image_copies_is_there_and_reaches_it() -> None:
    assert copied() >= {"app", "setup.cfg", "setup.py", "schema.sql", "gunicorn.conf.py"}
    assert {name for name in copied() if not (ROOT / name).exists()} == set()
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text()
    assert set(re.findall(r"^!(.+)$", ignored, re.MULTILINE)) == copied()


def test_the_image_runs_the_server_without_rights() -> None:
    assert instructions("USER")[-1].split(":")[0] not in {"0", "root"}
    assert instructions("ENTRYPOINT") == ['["benana"]']
    assert instructions("CMD") == ['["serve"]']
    assert "serve" in main.commands


def test_the_images_python_is_one_that_is_tested() -> None:
    setup = (ROOT / "setup.cfg").read_text()
    versions = re.findall(r"python:([\d.]+)", DOCKERFILE)
    assert versions
    for version in versions:
        assert f"Programming Language :: Python :: {version}\n" in setup


def test_the_images_health_check_asks_a_route_on_its_port(client: webtest.TestApp) -> None:
    (check,) = instructions("HEALTHCHECK")
    ((port, path),) = re.findall(r"127\.0\.0\.1:(\d+)(/[\w/]+)", check)
    assert image_environment()["BENANA_BIND"].endswith(f":{port}")
    assert instructions("EXPOSE") == [port]
    assert_route(client, path)


# --- compose.yaml, nginx.conf --------------------------------------------------------------------


def test_compose_builds_the_image_and_mounts_what_is_there() -> None:
    build = SERVICES["benana"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert "./nginx.conf:/etc/nginx/nginx.conf:ro" in SERVICES["nginx"]["volumes"]
    assert "${PLUGINS:-../plugins}:/srv/benana/plugins:ro" in SERVICES["benana"]["volumes"]
    assert "ports" not in SERVICES["benana"], "nginx is the only way in"
    for name, service in SERVICES.items():
        if "image" in service:
            assert re.fullmatch(r"[a-z]+:[\d.]+", service["image"]), f"{name} names a version"


def test_compose_waits_until_what_a_service_needs_is_healthy() -> None:
    for service in SERVICES.values():
        for name, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name] or "build" in SERVICES[name]


def test_nginx_passes_to_the_service_and_port_of_the_image() -> None:
    assert f"server {'benana'}:{instructions('EXPOSE')[0]};" in NGINX
    assert "benana" in SERVICES
    (published,) = SERVICES["nginx"]["ports"]
    assert f"listen {published.rpartition(':')[2]};" in NGINX


def test_nginx_closes_an_idle_connection_before_gunicorn_does() -> None:
    configured = re.search(r"^keepalive = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.M)
    upstream = re.search(r"upstream benana \{.*?keepalive_timeout (\d+)s;", NGINX, re.S)
    assert configured
    assert upstream
    assert int(upstream[1]) < int(configured[1])


# --- kubernetes.yaml -----------------------------------------------------------------------------


def test_one_pod_publishes_and_the_others_only_serve() -> None:
    watching = {
        name: Settings.from_environment({**image_environment(), **pod_environment(name)}).watch
        for name in PODS
    }
    assert watching == {"benana-publisher": True, "benana": False}
    assert DEPLOYMENTS["benana-publisher"]["replicas"] == 1
    assert DEPLOYMENTS["benana-publisher"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_writes_to_its_volumes_alone_and_is_not_root(name: str) -> None:
    pod, container = PODS[name], CONTAINERS[name]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert user == instructions("USER")[-1]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    claims = {
        v["persistentVolumeClaim"]["claimName"]
        for v in volumes.values()
        if len(v) == 2 and "persistentVolumeClaim" in v
    }
    made = {o["metadata"]["name"] for o in OBJECTS if o["kind"] == "PersistentVolumeClaim"}
    assert claims == (made if name == "benana-publisher" else set())


@pytest.mark.parametrize("name", PODS)
def test_the_probes_ask_routes_on_the_images_port(client: webtest.TestApp, name: str) -> None:
    container = CONTAINERS[name]
    (port,) = container["ports"]
    assert str(port["containerPort"]) == instructions("EXPOSE")[0]
    paths = {}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert_route(client, asked["path"])
        paths[probe] = asked["path"]
    assert paths["readinessProbe"] == "/health/ready"
    assert paths["livenessProbe"] == "/health/live", "what is not ready is not to be restarted"


def test_the_service_finds_the_servers_and_not_the_publisher() -> None:
    (service,) = (o["spec"] for o in OBJECTS if o["kind"] == "Service")

    def matches(labels: dict[str, Any]) -> bool:
        return service["selector"].items() <= labels.items()

    for name, spec in DEPLOYMENTS.items():
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert matches(labels) == (name == "benana")
    (port,) = service["ports"]
    assert port["targetPort"] == CONTAINERS["benana"]["ports"][0]["name"]


# --- systemd -------------------------------------------------------------------------------------


def test_whoever_stops_the_server_gives_it_time_for_its_last_requests() -> None:
    seconds = [pod["terminationGracePeriodSeconds"] for pod in PODS.values()]
    seconds.append(int(SERVICES["benana"]["stop_grace_period"].removesuffix("s")))
    unit = (DEPLOY / "benana.service").read_text()
    seconds += map(int, re.findall(r"^TimeoutStopSec=(\d+)", unit, re.MULTILINE))
    assert len(seconds) == 4
    assert min(seconds) > 30, "gunicorn's graceful_timeout"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="it takes systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    unit = (DEPLOY / "benana.service").read_text()
    assert "ExecStart=/opt/benana/bin/benana serve\n" in unit
    here = unit.replace("/opt/benana/bin/benana", shutil.which("true") or "")
    (tmp_path / "benana.service").write_text(here)
    shutil.copy(DEPLOY / "benana.socket", tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
