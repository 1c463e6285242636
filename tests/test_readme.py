"""The code in README.md runs, from top to bottom."""

import re
from pathlib import Path

import jaxtyping
import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_code_runs_from_top_to_bottom(tmp_path, monkeypatch):
    jaxtyping.config.update("jaxtyping_disable", True)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.S | re.M)
    assert len(blocks) > 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    jaxtyping.config.update("jaxtyping_disable", False)
