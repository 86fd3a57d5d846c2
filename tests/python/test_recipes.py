"""The recipes for wheels and for a conda package: nobody has run them, so they are read and compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import torchbcd

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/wheels.yml"
RECIPE, VARIANTS = ROOT / "conda/recipe.yaml", ROOT / "conda/variants.yaml"

pytestmark = pytest.mark.skipif(not WORKFLOW.exists(), reason="a source archive has no workflow")


def matrix():
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]["wheels"]["strategy"]["matrix"]


@pytest.mark.parametrize("path", [WORKFLOW, RECIPE])
def test_they_say_that_they_have_not_been_run(path):
    top = path.read_text().split("\n\n")[0].partition("\n#\n")[0]
    assert re.search(r"(has not been run|has been built from it) yet", " ".join(top.split("\n# ")))


def test_the_recipe_is_this_version():
    assert yaml.safe_load(RECIPE.read_text())["context"]["version"] == torchbcd.__version__


def test_both_are_for_the_same_releases():
    variants = yaml.safe_load(VARIANTS.read_text())
    releases = [str(release) for release in variants["pytorch"]]
    assert releases == matrix()["torch"]
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)[1]
    assert pinned in releases
    pythons = ["cp" + re.match(r"3\.(\d+)", python)[0].replace(".", "") for python in variants["python"]]
    assert pythons == matrix()["python"]


def test_no_release_is_older_than_setup_takes():
    oldest = re.search(r"^OLDEST_TORCH = \((\d+), (\d+)\)$", (ROOT / "setup.py").read_text(), re.MULTILINE)
    first = matrix()["torch"][0].split(".")
    assert (first[0], first[1]) == (oldest[1], oldest[2])


def test_the_smoke_test_is_there():
    for path in (WORKFLOW, RECIPE):
        assert "tests/install/smoke.py" in path.read_text()
    assert (ROOT / "tests/install/smoke.py").exists()
