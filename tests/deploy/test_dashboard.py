"""The dashboard: its panels ask for metrics that we have, and each says what it shows."""

import json
import re
from pathlib import Path

import pytest
import yaml

from streams.metrics import CanaryMetrics, Metrics
from streams.registry import families

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((FOLDER / "dashboards" / "upwell.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OURS = {**families(Metrics()), **families(CanaryMetrics())}
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_metrics_that_a_worker_or_a_canary_has(panel):
    asked = {
        HISTOGRAM.sub("", name)
        for target in panel["targets"]
        for name in re.findall(r"\b(?:upwell|process)_\w+", target["expr"])
    }

    assert asked
    assert asked <= set(OURS)


def test_every_metric_of_ours_is_on_the_dashboard():
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])

    # A build is no figure, and the age says the same as the time that it is counted from.
    left_out = {"upwell_checkpoint_timestamp_seconds", "upwell_cycle_timestamp_seconds"}
    left_out |= {"upwell_checkpoint_failures_total", "upwell_cycle_seconds"}
    ours = {name for name in OURS if name.startswith("upwell_")}
    assert {name for name in ours if name not in shown} == left_out


def test_a_panel_says_what_it_shows_and_in_which_unit():
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
        assert unit or panel["type"] == "heatmap", panel["title"]
        assert {target["refId"] for target in panel["targets"]} <= set("ABC")


def test_panels_have_numbers_and_places_of_their_own():
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(set(numbers)) == len(numbers)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_query_goes_to_the_data_source_that_the_reader_chose():
    sources = [panel["datasource"] for panel in PANELS]
    sources += [target["datasource"] for panel in PANELS for target in panel["targets"]]

    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert DASHBOARD["templating"]["list"][0]["name"] == "datasource"


def test_the_provisioning_names_the_folder_that_compose_mounts():
    provider = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "upwell.yml").read_text())
    compose = yaml.safe_load((ROOT / "deploy" / "docker" / "compose.yaml").read_text())

    path = provider["providers"][0]["options"]["path"]

    mounts = compose["services"]["grafana"]["volumes"]
    assert f"../grafana/dashboards:{path}:ro" in mounts
