"""`upwell partition`: how well the graph of a checkpoint can be cut."""

import json
import xml.etree.ElementTree as ET

import pytest
import typer
import typer.testing

from streams.cli_partition import register
from streams.partition_report import Quality, page, picture
from tests.streams.small import TITLES, small_checkpoint

FOUND = [Quality(2, 0.8, 0.5, 1.0, 0.1), Quality(8, 0.6, 0.125, 1.03, 0.2)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("partition") / "checkpoints"
    small_checkpoint(root)
    return root


@pytest.fixture
def upwell(root, monkeypatch):
    monkeypatch.setenv("UPWELL_CHECKPOINT__FOLDER", str(root))
    app = typer.Typer()
    register(app)
    return lambda *arguments: typer.testing.CliRunner().invoke(app, arguments)


def test_each_number_of_parts_is_cut_and_told_beside_random_parts(upwell, tmp_path):
    page = tmp_path / "report.html"

    result = upwell("--parts", "4,2", "--json", "--report", str(page), "--budget", "2000")

    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["titles"] == TITLES
    assert [one["parts"] for one in told["cuts"]] == [2, 4]
    for one in told["cuts"]:
        assert one["kept"] > one["random_kept"]
        assert one["against_random"] == pytest.approx(one["kept"] / one["random_kept"], abs=1e-3)
        assert one["balance"] <= 1.05  # forty titles: one title is a tenth of a part
    assert told["fit"]["parts"] == 1
    assert "<svg" in page.read_text()


def test_without_json_a_table_is_printed(upwell):
    result = upwell("--parts", "2", "--cutter", "kaminpar")

    assert result.exit_code == 0, result.output
    assert "times random" in result.stdout
    assert f"{TITLES} titles" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parts", "2,x"], "want whole numbers"),
        (["--parts", "0"], "want each from 1"),
        (["--cutter", "knife"], "want metis, kaminpar or auto"),
        (["--report", "a.png"], "name a .html or .svg file"),
    ],
)
def test_wrong_use_is_told_before_anything_is_cut(upwell, arguments, words):
    result = upwell(*arguments)

    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


def test_a_folder_without_a_checkpoint_is_named(upwell, tmp_path, monkeypatch):
    monkeypatch.setenv("UPWELL_CHECKPOINT__FOLDER", str(tmp_path / "none"))

    result = upwell("--parts", "2")

    assert result.exit_code == 1
    assert f"no whole checkpoint under {tmp_path / 'none'}" in str(result.exception)


def test_the_picture_is_whole_svg_with_a_point_for_each_cut_and_every_label_inside():
    tree = ET.fromstring(picture(FOUND, "a < b & c"))  # noqa: S314  (our own text)

    space = "{http://www.w3.org/2000/svg}"
    assert len(tree.findall(f"{space}circle")) == 3 * len(FOUND)  # kept, random, balance
    _, _, width, height = (float(one) for one in tree.attrib["viewBox"].split())
    for one in tree.findall(f"{space}text"):
        assert 0 <= float(one.attrib["x"]) <= width
        assert 0 <= float(one.attrib["y"]) <= height
    assert any("a < b & c" in (one.text or "") for one in tree.findall(f"{space}text"))


def test_the_page_carries_the_figures_and_no_markup_from_outside():
    text = page(FOUND, "<script>")

    assert "<td>0.600</td>" in text
    assert "<script>" not in text
