"""The documentation: it builds, its links lead somewhere, and what it tells to type exists."""

import ast
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from streams.cli import app
from streams.events import Message, decode_catalog, decode_coplays, decode_plays
from streams.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md")) + [
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
]
CODE = re.compile(
    r"^```.*?\n(?P<fence>.*?)^```|^(?: {4}|\t)(?P<line>.+)$|`(?P<inline>[^`\n]+)`", re.M | re.S
)
needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None,
    reason="DOCS NOT BUILT: the group docs is not installed; `make docs` does",
)


def typed(text: str) -> Iterator[str]:
    """The lines of code of a page; a line that ends in a backslash goes on."""
    for match in CODE.finditer(text):
        code = match["fence"] or match["line"] or match["inline"] or ""
        yield from code.replace("\\\n", " ").splitlines()


def commands(text: str, program: str) -> Iterator[list[str]]:
    """The words behind each call of `program` in the code of a page.

    Only a call that a person could type: the program stands first in its line, behind variables, or
    behind a pipe, `&` or `;`.
    """
    for line in typed(text):
        for part in re.split(r"\s(?:\||&&?|;)(?:\s|$)|(?<=\w)&$|\$\(|\)$", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue
            while words and re.fullmatch(r"[A-Z_]+=.*|\$|sudo|nohup", words[0]):
                words.pop(0)
            if words and Path(words[0]).name == program:
                yield words[1:]


def parse(words: list[str]) -> None:
    """Have the program's own parser read the words; raises where it would refuse them.

    A command's bare name in the text is its name, not a call.
    """
    command = typer.main.get_command(app)
    path = ["upwell"]
    while hasattr(command, "commands"):
        if not words or words[0] == "--help":
            return
        assert words[0] in command.commands, f"`{' '.join([*path, words[0]])}` is no command"
        path.append(words[0])
        command = command.commands[words.pop(0)]
    if words and "..." not in words and "--help" not in words:
        command.make_context(" ".join(path), list(words))


@needs_mkdocs
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]

    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )

    assert done.returncode == 0, done.stderr
    settings = (tmp_path / "reference" / "settings.html").read_text()
    for section, field in Settings.model_fields.items():
        assert f"UPWELL_{section.upper()}__" in settings
        assert [name for name in field.annotation.model_fields if name not in settings] == []
    assert "upwell catalog publish" in (tmp_path / "reference" / "commands.html").read_text()


def test_the_examples_of_messages_are_messages() -> None:
    page = (ROOT / "docs" / "messages.md").read_text()
    decode = {"plays": decode_plays, "coplays": decode_coplays, "catalog": decode_catalog}

    for topic, decoder in decode.items():
        section = page.partition(f"\n## {topic}\n")[2].partition("\n## ")[0]
        example = re.search(r"^```json\n(.*)\n```", section, re.M)
        assert example is not None
        message = Message(topic, 0, 0, b"1", example[1].encode(), 1763737200000)
        assert list(decoder([message]).dead) == []

    told = decode_catalog([Message("catalog", 0, 0, b"1", b'{"title": 1}', 0)]).dead
    assert len(told) == 1


@needs_mkdocs
def test_a_link_that_leads_nowhere_is_told(caplog: pytest.LogCaptureFixture) -> None:
    hooks = load_hooks()

    inside = hooks.turn("../ARCHITECTURE.md#x", source="docs/demo.md", place="demo.md")
    outside = hooks.turn("../streams/cli.py", source="docs/demo.md", place="demo.md")
    nowhere = hooks.turn("../no-such.md", source="docs/demo.md", place="demo.md")

    assert inside == "architecture.md#x"
    assert outside is None
    assert nowhere is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no-such.md" in caplog.text


def load_hooks():
    spec = importlib.util.spec_from_file_location("build_hooks", ROOT / "docs" / "build_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_of_a_page_is_one_that_the_program_takes(page: Path) -> None:
    found = list(commands(page.read_text(), "upwell"))

    for words in found:
        parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_target_of_make_in_a_page_is_in_the_makefile(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    benchmarks = {f"bench-{path.stem[6:]}" for path in (ROOT / "benchmarks").glob("bench_*.py")}

    called = {
        word for words in commands(page.read_text(), "make") for word in words if "=" not in word
    }

    assert {word for word in called if word.islower()} <= targets | benchmarks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_setting_that_a_page_names_is_one(page: Path) -> None:
    sections = {
        name: set(one.annotation.model_fields) for name, one in Settings.model_fields.items()
    }
    named = re.findall(rf"`({'|'.join(sections)})\.([a-z_0-9]+)[` ]", page.read_text())
    variables = set(re.findall(r"\bUPWELL_([A-Z]+)__([A-Z_0-9]+)\b", page.read_text()))

    wrong = [(section, name) for section, name in named if name not in sections[section]]
    wrong += [
        (section, name)
        for section, name in variables - {("SECTION", "KEY")}
        if name.lower() not in sections.get(section.lower(), set())
    ]

    assert wrong == []


def test_the_check_sees_commands_wherever_a_page_shows_them() -> None:
    page = """
    Do `upwell nosuch` now.

        UPWELL_CONFIG=x .venv/bin/upwell sessions & .venv/bin/upwell worker  # both

    ```sh
    echo titles | upwell catalog publish - \\
        --wait
    ```
    """

    found = list(commands(re.sub("^    ", "", page, flags=re.M), "upwell"))

    assert found == [["nosuch"], ["sessions"], ["worker"], ["catalog", "publish", "-", "--wait"]]
    with pytest.raises(AssertionError, match="upwell nosuch"):
        parse(found[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_python_of_a_page_imports_from_us_is_there(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                module = importlib.import_module(node.module)
                assert [one.name for one in node.names if not hasattr(module, one.name)] == []
