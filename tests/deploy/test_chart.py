"""The Helm chart: what it renders is right for Kubernetes, and for the program that it starts."""

import functools
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

from streams.cli import app
from streams.settings import Settings, load_settings
from tests.deploy import kube_schemas

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "deploy" / "helm" / "upwell"
EVERYTHING = (
    *("podMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true"),
    *("gpu.enabled=true", "kafka.secret=kafka", "settings.kafka.sasl_username=upwell"),
    *("bootstrap.data=/data", "bootstrap.volume.persistentVolumeClaim.claimName=history"),
    *("worker.storage.className=fast", "prometheusRule.runbook=https://runbooks.example/upwell"),
)
DEFAULT: tuple[str, ...] = ()
pytestmark = pytest.mark.skipif(
    shutil.which("helm") is None,
    reason="CHART NOT TESTED: no helm; go install helm.sh/helm/v3/cmd/helm@latest",
)


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    version = ["--kube-version", kube_schemas.VERSION]
    return subprocess.run(
        ["helm", *arguments, *version], capture_output=True, text=True, timeout=200
    )


@functools.cache
def rendered(values: tuple[str, ...]) -> str:
    done = helm("template", "rel", CHART, *(word for one in values for word in ("--set", one)))
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(values: tuple[str, ...]) -> dict[tuple[str, str], dict]:
    """What the chart makes, by kind and name."""
    found = yaml.load_all(rendered(values), Loader=yaml.CSafeLoader)
    return {(one["kind"], one["metadata"]["name"]): one for one in found if one}


def pods(values: tuple[str, ...]) -> dict[str, dict]:
    """The pods' templates by component."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["spec"]
        for (kind, _), one in objects(values).items()
        if kind in ("StatefulSet", "Deployment")
    }


def test_helm_has_nothing_against_the_chart():
    done = helm("lint", "--strict", CHART)

    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(
    shutil.which("kubeconform") is None,
    reason="CHART NOT HELD AGAINST KUBERNETES: no kubeconform; "
    "go install github.com/yannh/kubeconform/cmd/kubeconform@latest",
)
@pytest.mark.parametrize("values", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_what_it_renders_is_what_kubernetes_takes(values, tmp_path):
    if not kube_schemas.kubernetes(tmp_path):
        pytest.skip(
            "CHART NOT HELD AGAINST KUBERNETES: the package kubernetes-validate has schemas"
        )
    location = f"{tmp_path}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = ["kubeconform", "-strict", "-summary", "-schema-location", location]
    unknown = 0 if kube_schemas.operator(tmp_path) else 2 * (values is EVERYTHING)
    if unknown:
        command += ["-skip", "PodMonitor,PrometheusRule"]

    text = rendered(values)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=200)
    broken = text.replace("securityContext:", "securityContexts:", 1)
    refused = subprocess.run(command, input=broken, capture_output=True, text=True, timeout=200)

    assert done.returncode == 0, done.stdout
    assert f"Invalid: 0, Errors: 0, Skipped: {unknown}" in done.stdout
    assert refused.returncode == 1
    if unknown:
        pytest.skip("PODMONITOR AND PROMETHEUSRULE NOT HELD AGAINST THEIR SCHEMAS: no such module")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("worker.replicas=2", "replicas"),
        ("settings.redis.url=redis://x", "redis"),
        ("settings.checkpoint.folder=/elsewhere", "checkpoint"),
        ("ports.worker=80", "worker"),
        ("bootstrap.data=$(id)", "data"),
        ("redis.secret=", "secret"),
        ("sesions.replicas=2", "sesions"),
    ],
)
def test_a_value_that_is_wrong_is_refused_by_name(value, named):
    done = helm("template", "rel", CHART, "--set", value)

    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize("values", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_the_program_takes_the_settings_that_it_is_given(values, tmp_path, monkeypatch):
    config = objects(values)["ConfigMap", "rel-upwell"]["data"]["upwell.toml"]
    (tmp_path / "upwell.toml").write_text(config)
    elsewhere = {"UPWELL_REDIS__URL": "redis://reader@redis:6379/0", "UPWELL_WORKER__ID": "pod-0"}
    files = {"UPWELL_CONFIG", "UPWELL_KAFKA__SASL_PASSWORD_FILE"}  # are in the container alone
    given = {
        one["name"]: one.get("value") or elsewhere[one["name"]]
        for container in containers(values)
        for one in container.get("env", [])
    }
    for name in given.keys() - files:
        monkeypatch.setenv(name, given[name])

    settings = load_settings(tmp_path / "upwell.toml")

    assert settings.kafka.bootstrap == tomllib.loads(config)["kafka"]["bootstrap"]
    assert (settings.operate.port, settings.canary.port) == (9464, 9465)
    variables = {
        f"UPWELL_{section}__{key}".upper()
        for section, field in Settings.model_fields.items()
        for key in field.annotation.model_fields
    }
    assert given.keys() - {"UPWELL_CONFIG"} <= variables


def containers(values: tuple[str, ...]) -> list[dict]:
    return [
        container
        for pod in pods(values).values()
        for container in [*pod.get("initContainers", []), *pod["containers"]]
    ]


@pytest.mark.parametrize("values", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_every_container_runs_a_command_of_the_program(values):
    commands = typer.main.get_command(app).commands

    for pod in pods(values).values():
        assert pod["containers"][0]["args"][0] in commands
    scripts = [one["args"][0] for one in containers(values) if one["name"] == "bootstrap"]
    called = {name for script in scripts for name in re.findall(r"upwell (\w+)", script)}
    assert called <= set(commands)
    assert bool(called) == (values is EVERYTHING)


@pytest.mark.parametrize("values", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_no_container_may_do_more_than_it_needs(values):
    for pod in pods(values).values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
    for container in containers(values):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_a_pod_writes_only_where_something_is_mounted():
    for pod in pods(EVERYTHING).values():
        volumes = {one["name"] for one in pod["volumes"]} | {"state"}
        for container in [*pod["initContainers"], *pod["containers"]]:
            assert {one["name"] for one in container["volumeMounts"]} <= volumes
        main = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
        assert {"/tmp", "/var/cache/upwell", "/var/lib/upwell"} <= main


def test_probes_ask_the_paths_that_the_worker_answers():
    worker = pods(DEFAULT)["worker"]["containers"][0]

    asked = {worker[f"{one}Probe"]["httpGet"]["path"] for one in ("startup", "liveness")}

    assert asked == {"/livez"}
    assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert worker["ports"] == [{"name": "metrics", "containerPort": 9464}]


def test_a_gpu_is_asked_for_and_its_node_chosen_only_when_told():
    plain, gpu = pods(DEFAULT)["worker"], pods(EVERYTHING)["worker"]

    assert "nodeSelector" not in plain
    assert gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    asked = [
        {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        for pod in (plain, gpu)
    ]
    assert [env.get("UPWELL_TRAINING__DEVICE") for env in asked] == [None, "cuda"]


def test_the_rules_are_those_that_promtool_has_tested_with_links_of_ones_own():
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "upwell.rules.yml").read_text())

    groups = objects(EVERYTHING)["PrometheusRule", "rel-upwell"]["spec"]["groups"]

    links = {rule["annotations"].pop("runbook_url") for one in groups for rule in one["rules"]}
    assert all(link.startswith("https://runbooks.example/upwell#upwell") for link in links)
    for one in rules["groups"]:
        for rule in one["rules"]:
            del rule["annotations"]["runbook_url"]
    assert groups == rules["groups"]


def test_the_alert_on_targets_sees_the_job_of_the_pod_monitor():
    """Prometheus names a PodMonitor's job after its namespace and its own name."""
    name = objects(EVERYTHING)["PodMonitor", "rel-upwell"]["metadata"]["name"]
    rules = (ROOT / "deploy" / "prometheus" / "upwell.rules.yml").read_text()

    pattern = re.search(r'up\{job=~"(.*?)"\}', rules)

    assert pattern is not None
    assert re.fullmatch(pattern[1], f"monitoring/{name}")


def test_the_network_policy_lets_in_who_asks_and_out_to_kafka_and_redis():
    policy = objects(DEFAULT)["NetworkPolicy", "rel-upwell"]["spec"]

    inside = {port["port"] for port in policy["ingress"][0]["ports"]}
    outside = {port["port"] for rule in policy["egress"] for port in rule["ports"]}

    assert inside == {9464, 9465}
    assert outside == {53, 9092, 6379}
