"""The house's rules, held against its imports. ARCHITECTURE.md says why."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A package may import itself and what stands here. Data flows the other way, as values.
MAY_IMPORT: dict[str, set[str]] = {
    "store": set(),
    "serve": set(),
    "partition": {"store"},
    "model": {"partition", "store"},
    "streams": {"model", "partition", "serve", "store"},
}

# A client of the outside world is known to few files, and a room to none that it does not serve.
ONLY_UNDER: dict[str, tuple[str, ...]] = {
    "faust": ("streams/sessions.py", "streams/canary.py"),
    "confluent_kafka": ("streams/",),
    "redis": ("serve/",),
    "numba": ("store/",),
    "torch": ("model/",),
    "pymetis": ("partition/mincut.py",),
    "kaminpar": ("partition/mincut.py",),
    "prometheus_client": ("streams/registry.py",),
    "opentelemetry": ("streams/traces.py",),
    "typer": ("streams/cli",),
    "matplotlib": ("streams/demo/", "streams/charts.py"),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            yield (node.module or "").partition(".")[0]


FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]

    ours = {name for name in imports(path) if name in MAY_IMPORT}

    assert ours <= MAY_IMPORT[package] | {package}


@pytest.mark.parametrize("client", ONLY_UNDER)
def test_each_client_is_known_where_it_belongs(client: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in FILES if client in imports(path)}

    assert all(user.startswith(ONLY_UNDER[client]) for user in users), users


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_the_package_that_is_imported_is_ours(package: str) -> None:
    """Plain names such as `store` exist in other distributions, which could stand before ours."""
    module = __import__(package)

    assert Path(module.__file__ or "").is_relative_to(ROOT)
