"""Dockerfile and compose file, held against linters, a schema, and the program itself.

No engine runs here: what is checked is that the files are right, not that an image was built.
"""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import typer.main
import yaml

from streams.cli import app
from streams.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"] == "upwell:latest"}
RUNTIME = DOCKERFILE.rpartition("\nFROM ")[2]


def image_environment() -> dict[str, str]:
    """What the image sets for the program."""
    env = re.search(r"^ENV (.*?[^\\])$", RUNTIME, re.M | re.S)
    assert env is not None
    words = shlex.split(env[1].replace("\\\n", " "))
    return dict(word.split("=", 1) for word in words)


def settings_of(service: dict, monkeypatch: pytest.MonkeyPatch):
    """The settings that a service's program would have."""
    for name, value in {**image_environment(), **service.get("environment", {})}.items():
        if name.startswith("UPWELL_"):
            monkeypatch.setenv(name, value)
    return load_settings()


@pytest.mark.skipif(
    shutil.which("tally") is None,
    reason="DOCKERFILE NOT LINTED: no tally; the package tally-cli has it",
)
def test_the_linter_has_nothing_against_the_dockerfile():
    command = ["tally", "lint", "--no-config", "--max-lines", "0", "--fail-level", "warning"]

    done = subprocess.run(
        [*command, FOLDER / "Dockerfile"], capture_output=True, text=True, timeout=200
    )

    assert done.returncode == 0, done.stdout


def test_the_image_holds_every_package_of_the_program_and_ends_unprivileged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}

    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.M))
    needed = " ".join(re.findall(r"^COPY (.*) \./$", DOCKERFILE, re.M)).split()

    assert copied == packages
    assert all((ROOT / name).is_file() for name in needed)
    ignore = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{name}" for name in packages | set(needed)} <= set(ignore)
    assert re.findall(r"^USER (.*)$", RUNTIME, re.M) == ["10001:10001"]
    assert set(project["project"]["scripts"]) == {"upwell"}
    assert 'ENTRYPOINT ["upwell"]' in RUNTIME


def test_the_image_gives_out_the_ports_that_it_sets():
    env = image_environment()

    exposed = re.search(r"^EXPOSE (.*)$", RUNTIME, re.M)

    assert exposed is not None
    ports = {env["UPWELL_OPERATE__PORT"], env["UPWELL_CANARY__PORT"]}
    assert set(exposed[1].split()) == ports


def test_kernels_are_compiled_for_the_processor_that_they_are_run_as():
    """Numba's cache is by processor: one that was made for another is not used."""
    build = re.search(r"^ENV (XDG_CACHE_HOME=.*)$", DOCKERFILE, re.M)
    assert build is not None

    made = dict(word.split("=", 1) for word in shlex.split(build[1]))

    env = image_environment()
    assert made == {name: env[name] for name in made}
    assert "NUMBA_CPU_NAME" in made


def test_the_compose_file_follows_the_specification():
    spec = importlib.util.find_spec("check_jsonschema")
    assert spec is not None
    assert spec.origin is not None
    schemas = Path(spec.origin).parent / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())

    jsonschema.validate(COMPOSE, schema)

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**COMPOSE, "service": {}}, schema)


def test_everything_that_was_promised_is_in_the_compose_file():
    assert {"kafka", "redis", "worker", "sessions", "canary", "prometheus", "grafana"} <= set(
        SERVICES
    )
    for name, service in OURS.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_command_of_the_program(name):
    program = typer.main.get_command(app)
    service = OURS[name]

    if "entrypoint" not in service:  # the image's own: `upwell`
        calls = [service["command"]]
    else:
        calls = [
            [word for word in call.split() if word != "$$(upwell"]
            for call in re.findall(r"upwell ([a-z][^;>)]*)", service["command"][0])
        ]

    assert calls
    for words in calls:
        command = program
        while hasattr(command, "commands"):
            assert words[0] in command.commands, words
            command = command.commands[words[0]]
            words = words[1:]


@pytest.mark.parametrize("name", OURS)
def test_a_service_reaches_the_servers_by_addresses_that_they_have(name, monkeypatch):
    settings = settings_of(OURS[name], monkeypatch)

    redis = urlsplit(settings.redis.url.get_secret_value())
    kafka = SERVICES["kafka"]["environment"]

    assert f"INSIDE://{settings.kafka.bootstrap}" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert redis.hostname in SERVICES
    users = (ROOT / "deploy" / "redis.acl").read_text()
    assert f"user {redis.username} on >{redis.password} " in users
    assert set(OURS[name].get("depends_on", {})) <= set(SERVICES)


def test_prometheus_asks_worker_and_canary_where_they_answer(monkeypatch):
    scraped = {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())[
            "scrape_configs"
        ]
    }

    settings = settings_of(OURS["worker"], monkeypatch)

    assert scraped == {
        "upwell-worker": [f"worker:{settings.operate.port}"],
        "upwell-canary": [f"canary:{settings.canary.port}"],
    }
    assert settings.operate.host == settings.canary.host == "0.0.0.0"  # noqa: S104 -- a container
    probe = OURS["worker"]["healthcheck"]["test"][-1]
    assert f"http://127.0.0.1:{settings.operate.port}/livez" in probe


def test_ports_are_bound_to_this_machine_and_are_those_of_the_servers():
    published = {
        name: [port.split(":") for port in service.get("ports", [])]
        for name, service in SERVICES.items()
    }

    assert all(port[0] == "127.0.0.1" for ports in published.values() for port in ports)
    inside = {name: [port[2] for port in ports] for name, ports in published.items() if ports}
    assert inside == {
        "kafka": ["9092"],
        "redis": ["6379"],
        "worker": [image_environment()["UPWELL_OPERATE__PORT"]],
        "prometheus": ["9090"],
        "grafana": ["3000"],
    }


def test_every_file_that_is_mounted_is_there():
    mounts = [
        mount.split(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
        if isinstance(mount, str)
    ]

    assert all((FOLDER / mount).exists() for mount in mounts if mount.startswith("."))
    named = {mount for mount in mounts if not mount.startswith(".")}
    assert named <= set(COMPOSE["volumes"])


def test_the_data_source_is_the_prometheus_of_the_compose_file():
    source = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
    )

    url = urlsplit(source["datasources"][0]["url"])

    assert url.hostname in SERVICES
    assert url.port == 9090
