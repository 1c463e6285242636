"""The code of README.md runs from top to bottom, and its links exist."""

import re
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


@pytest.mark.slow
def test_the_code_runs_from_top_to_bottom(tmp_path, monkeypatch):
    jaxtyping.config.update("jaxtyping_disable", True)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.S | re.M)
    assert len(blocks) > 1
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    jaxtyping.config.update("jaxtyping_disable", False)


def test_it_fits_two_screens_and_its_links_exist():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 120
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / link).exists(), f"README.md refers to {link}"
