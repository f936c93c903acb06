"""JSON schemas of Kubernetes and of the Prometheus Operator, as kubeconform takes them.

    Kubernetes     from the Python package kubernetes-validate
    the Operator   from the Go module github.com/prometheus-operator/prometheus-operator, where
                   `go mod download` has put it: the OpenAPI schemas of its resources

Both are read from this machine. Nothing is fetched.
"""

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

VERSION = "1.30.0"
KINDS = (
    *("configmap-v1", "deployment-apps-v1", "networkpolicy-networking-v1", "service-v1"),
    *("serviceaccount-v1", "statefulset-apps-v1"),
)
OPERATOR = "github.com/prometheus-operator/prometheus-operator@*/example/prometheus-operator-crd"


def kubernetes(folder: Path) -> bool:
    """Put the schemas of what the chart makes into `folder`; False where there are none."""
    spec = importlib.util.find_spec("kubernetes_validate")
    root = os.environ.get("KUBERNETES_SCHEMAS")
    if spec is not None and spec.origin is not None:
        root = root or str(Path(spec.origin).parent / "kubernetes-json-schema")
    if root is None:
        return False
    source = Path(root) / f"v{VERSION}-local-strict"
    for name in (*KINDS, "_definitions"):
        schema = json.loads((source / f"{name}.json").read_text())
        schema.pop("$id", None)  # a server's address: references would go there, not to a file
        text = json.dumps(schema).replace("/api/_definitions.json", "_definitions.json")
        (folder / f"{name}.json").write_text(text)
    return True


def operator(folder: Path) -> bool:
    """Put those of PodMonitor and PrometheusRule into `folder`; False where there are none."""
    found = sorted(_modules().glob(OPERATOR))
    if not found:
        return False
    for kind in ("podmonitor", "prometheusrule"):
        file = found[-1] / f"monitoring.coreos.com_{kind}s.yaml"
        crd = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        (folder / f"{kind}-monitoring-v1.json").write_text(json.dumps(_strict(schema)))
    return True


def _modules() -> Path:
    try:
        done = subprocess.run(
            ["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return Path("/nonexistent")
    return Path(done.stdout.strip())


def _strict(schema: Any) -> Any:
    """The same, where an object takes no property that it does not name."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _strict(value) for key, value in schema.items()}
    named = isinstance(out.get("properties"), dict) and out.get("type") == "object"
    if named and not out.get("x-kubernetes-preserve-unknown-fields") and "apiVersion" not in out:
        out.setdefault("additionalProperties", False)
    if isinstance(schema.get("properties"), dict) and "metadata" in schema["properties"]:
        out["properties"]["metadata"] = {"type": "object"}
    return out
