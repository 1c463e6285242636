"""The project's metadata agree with each other, and the package works without its extras."""

import re
import tomllib
from pathlib import Path

import pytest

import fnn
from tests import package_smoke

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")


def lower_bound(name: str) -> str:
    (found,) = [d for d in PROJECT["dependencies"] if re.match(rf"{name}\W", d)]
    return re.search(r">=([\d.]+)", found)[1]


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\nversion: {fnn.__version__}\n" in citation
    assert f"\n## [{fnn.__version__}]" in changelog
    assert changelog.index("\n## [Unreleased]") < changelog.index(f"\n## [{fnn.__version__}]")


def test_the_workflow_tests_the_versions_that_are_promised():
    pythons = re.search(r"python: \[(.*)\]", WORKFLOW)[1].replace('"', "").split(", ")
    prefix = "Programming Language :: Python :: 3."
    promised = [c for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert promised == [f"Programming Language :: Python :: {p}" for p in pythons]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert lower_bound("jax") == lower_bound("jaxlib")
    oldest = f"{lower_bound('jax')}.0"
    assert f'jax: ["=={oldest}", ">={lower_bound("jax")}"]' in WORKFLOW


def test_pre_commit_runs_the_commands_of_make_check():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.M)[1]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    expected = [line.strip().replace("$(BIN)", ".venv/bin") for line in commands.splitlines()]
    assert re.findall(r"entry: (.*)", hooks) == expected


@pytest.mark.slow
@pytest.mark.skipif(not package_smoke.can_build(), reason="needs hatchling: pip install 'fnn[dev]'")
def test_the_wheel_trains_without_extras():
    assert "accuracy 100%" in package_smoke.main()
