"""A real Prometheus over a running worker: what its dashboard and its alerts see.

    Prometheus       Debian's `prometheus`, on a free port, with deploy/prometheus' own rules
    panels_with_data each panel's queries, as Grafana would send them
    firing, holding  alerts that fired over a time, and conditions that hold now
    alerts_tested    alerts whose test with promtool passes

Missing programs are named, and their figures are null.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from streams.embedded import Child, ServerFailed, spawn

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "deploy" / "prometheus" / "upwell.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "upwell.json"
SCRAPE_S = 2
STEP_S = 5
VARIABLES = {"$__rate_interval": "20s", "$instance": ".*", "$__interval": f"{STEP_S}s"}


class Prometheus:
    """Scrapes and evaluates from its start; `stop` ends it.

    Args:
        targets: HOST:PORT by name of the job.

    Raises:
        ServerFailed: it did not start.
    """

    def __init__(self, folder: Path, port: int, targets: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        config = {
            "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{STEP_S}s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]}
                for job, target in targets.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._url = f"http://127.0.0.1:{port}"
        self.child: Child = spawn(
            "prometheus",
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            log=folder / "prometheus.log",
        )
        deadline = time.monotonic() + 60
        while not self._ready():
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"prometheus did not start:\n{self.child.tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        self.child.stop()

    def now(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        return self._ask("query", query=expression)

    def over(self, expression: str, start_s: float, end_s: float) -> list[dict[str, Any]]:
        """The series that it had between two moments, Unix seconds."""
        return self._ask("query_range", query=expression, start=start_s, end=end_s, step=STEP_S)

    def _ask(self, what: str, **parameters: Any) -> list[dict[str, Any]]:
        with urlopen(f"{self._url}/api/v1/{what}?{urlencode(parameters)}", timeout=30) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def _ready(self) -> bool:
        try:
            with urlopen(f"{self._url}/-/ready", timeout=1) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


def rules() -> dict[str, str]:
    """The expression of each alert."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels() -> dict[str, list[str]]:
    """The queries of each panel by its title, as Grafana sends them."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        queries = [target["expr"] for target in panel.get("targets", [])]
        for variable, value in VARIABLES.items():
            queries = [query.replace(variable, value) for query in queries]
        if queries:
            found[f"{panel['id']} {panel['title']}"] = queries
    return found


def panels_without_data(prometheus: Prometheus, start_s: float, end_s: float) -> list[str]:
    """Panels of which a query gives nothing that can be drawn."""
    return [
        title
        for title, queries in panels().items()
        if not all(_drawn(prometheus.over(query, start_s, end_s)) for query in queries)
    ]


def _drawn(series: list[dict[str, Any]]) -> bool:
    return any(value != "NaN" for one in series for _, value in one["values"])


def firing(prometheus: Prometheus, start_s: float, end_s: float) -> list[str]:
    """Alerts that fired at any moment in between."""
    series = prometheus.over('ALERTS{alertstate="firing"}', start_s, end_s)
    return sorted({one["metric"]["alertname"] for one in series})


def holding(prometheus: Prometheus) -> list[str]:
    """Alerts whose condition holds now, however long it would have to."""
    return [name for name, expression in rules().items() if prometheus.now(expression)]


def alerts_tested() -> int | None:
    """Alerts that promtool has seen fire, and be silent on a healthy worker's series."""
    if shutil.which("promtool") is None:
        return None
    tests = RULES.with_name("upwell.test.yml")
    done = subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True)
    told = done.stdout + done.stderr
    if 'expr: "ALERTS{alertstate' in told:
        return 0  # one fires on a healthy worker's series
    failed = set(re.findall(r'alertname=\\"(\w+)\\"', told))
    named = {one["name"] for one in yaml.safe_load(tests.read_text())["tests"]}
    return len((named & set(rules())) - failed) if done.returncode == 0 or failed else 0
