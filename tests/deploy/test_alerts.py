"""The alert rules: each is tested with promtool, explained in the runbook, and of our metrics."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from streams.metrics import CanaryMetrics, Metrics
from streams.registry import families

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((FOLDER / "upwell.rules.yml").read_text())
TESTS = yaml.safe_load((FOLDER / "upwell.test.yml").read_text())["tests"]
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="ALERTS NOT TESTED: no promtool; Debian's package prometheus has it",
)


def metrics_of(expression: str) -> set[str]:
    """The names of metrics in an expression of PromQL."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}', "", expression)
    return {
        HISTOGRAM.sub("", name) for name in re.findall(r"\b(?:upwell|process)_\w+|\bup\b", bare)
    }


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=200)


@needs_promtool
def test_the_rules_are_right():
    done = promtool("check", "rules", FOLDER / "upwell.rules.yml")

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_configuration_of_the_compose_files_prometheus_is_right(tmp_path):
    config = (FOLDER / "prometheus.yml").read_text()
    here = config.replace("/etc/prometheus/", f"{FOLDER}/")
    (tmp_path / "prometheus.yml").write_text(here)

    done = promtool("check", "config", tmp_path / "prometheus.yml")

    assert here != config
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_alert_fires_on_its_series_and_none_on_those_of_a_healthy_worker():
    done = promtool("test", "rules", FOLDER / "upwell.test.yml")

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_an_alert_that_never_fires_fails_its_test(tmp_path):
    told = failures_with(tmp_path, "vector(1) > 2")

    assert set(re.findall(r'count\(ALERTS\{alertname=."(\w+)', told)) == set(ALERTS)


@needs_promtool
def test_an_alert_that_always_fires_fails_the_healthy_test(tmp_path):
    told = failures_with(tmp_path, "vector(1)")

    healthy = told.partition("count(")[0]
    assert set(re.findall(r'alertname="(\w+)"', healthy)) == set(ALERTS)


def failures_with(folder: Path, expression: str) -> str:
    """What promtool says where every alert has one `expression`."""
    broken = yaml.safe_load((FOLDER / "upwell.rules.yml").read_text())
    for group in broken["groups"]:
        for rule in group["rules"]:
            rule["expr"] = expression
    (folder / "upwell.rules.yml").write_text(yaml.safe_dump(broken))
    shutil.copy(FOLDER / "upwell.test.yml", folder)
    done = promtool("test", "rules", folder / "upwell.test.yml")
    assert done.returncode == 1
    return done.stdout + done.stderr


def test_each_alert_has_a_test_and_each_test_an_alert():
    assert {test["name"] for test in TESTS} == {"healthy", *ALERTS}
    assert all(
        any(check["exp_samples"] for check in test["promql_expr_test"])
        for test in TESTS
        if test["name"] != "healthy"
    )


def test_the_healthy_series_hold_every_metric_that_an_alert_looks_at():
    healthy = next(test for test in TESTS if test["name"] == "healthy")

    given = {HISTOGRAM.sub("", one["series"].partition("{")[0]) for one in healthy["input_series"]}

    assert {name for rule in ALERTS.values() for name in metrics_of(rule["expr"])} == given


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_looks_at_metrics_that_a_worker_or_a_canary_has(name):
    ours = {**families(Metrics()), **families(CanaryMetrics())}

    asked = metrics_of(ALERTS[name]["expr"]) - {"up"}

    assert asked <= set(ours)


def test_the_runbook_has_each_alert_and_no_other():
    runbook = (ROOT / "docs" / "runbook.md").read_text()

    headings = re.findall(r"^## (Upwell\w+)$", runbook, re.M)

    assert headings == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        severity = re.search(rf"^## {name}\n\n`(\w+)`\. ", runbook, re.M)
        assert severity is not None
        assert severity[1] == rule["labels"]["severity"]
