"""The code of the documentation runs: blocks, doctests and the cells of the side-by-side tables."""

import doctest
import importlib.util
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxtyping
import pytest

from tests.test_doctests import Checker

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')
PEERS = {
    "PyTorch": "torch", "Flax": "flax", "Equinox": "equinox", "Optax": "optax", "Keras": "keras",
}  # fmt: skip


class Block(NamedTuple):
    namespace: str  # the title: one namespace for each library
    line: int
    code: str


def blocks(text: str) -> list[Block]:
    """The blocks of Python of a page; one without a title belongs to fnn."""
    return [
        Block(
            title.group(1) if (title := TITLE.search(match.group(1))) else "fnn",
            text[: match.start()].count("\n") + 2,
            match.group(2),
        )
        for match in FENCE.finditer(text)
    ]


def cells(text: str) -> list[Block]:
    """The code in the tables that set libraries side by side, by the head of its column."""
    found: list[Block] = []
    heads: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        row = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            heads = []
        elif not heads:
            heads = row
        elif "fnn" in heads and not set(line) <= set("|-: "):
            found += [
                Block(head, number, cell.strip("`"))
                for head, cell in zip(heads, row, strict=True)
                if head in ("fnn", *PEERS) and cell.startswith("`")
            ]
    return found


def is_installed(namespace: str) -> bool:
    return namespace == "fnn" or importlib.util.find_spec(PEERS[namespace]) is not None


def run(block: Block, page: Path, scope: dict[str, Any]) -> None:
    if ">>>" not in block.code:
        padded = "\n" * (block.line - 1) + block.code  # an error names the line of the page
        exec(compile(padded, str(page), "exec"), scope)
        return
    example = doctest.DocTestParser().get_doctest(
        block.code, scope, page.name, str(page), block.line
    )
    example.globs = scope
    runner = doctest.DocTestRunner(Checker(), optionflags=doctest.ELLIPSIS, verbose=False)
    report: list[str] = []
    runner.run(example, out=report.append, clear_globs=False)
    assert not runner.failures, "".join(report)


@pytest.fixture
def as_users(tmp_path, monkeypatch):
    """An empty folder, without the strict settings of the tests and the checks of shapes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_key_reuse(False),
    ):
        yield


WITH_CODE = [page for page in PAGES if blocks(page.read_text())]


@pytest.mark.sampled(5)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, as_users, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["python"])
    text = page.read_text()
    scopes: dict[str, dict[str, Any]] = {}
    for block in [*blocks(text), *cells(text)]:
        if is_installed(block.namespace):
            scope = scopes.setdefault(block.namespace, {"__name__": "page"})
            run(block, page, scope)


NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


@pytest.mark.slow  # `make docs` executes them too
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook, as_users):
    pytest.importorskip("matplotlib").use("agg")
    found = json.loads(notebook.read_text())["cells"]
    scope: dict[str, Any] = {"__name__": "notebook"}
    for cell in found:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "outputs are made when the site is built"
            exec(compile("".join(cell["source"]), notebook.name, "exec"), scope)


def test_every_page_is_in_the_navigation_and_every_link_leads_somewhere():
    listed = (ROOT / "mkdocs.yml").read_text()
    for page in [*PAGES, *NOTEBOOKS]:
        assert str(page.relative_to(ROOT / "docs")) in listed, page
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_a_block_that_fails_is_found():
    with pytest.raises(AssertionError):
        run(Block("fnn", 1, ">>> 1 + 1\n3\n"), Path("page.md"), {})
    with pytest.raises(ZeroDivisionError):
        run(Block("fnn", 1, "1 / 0"), Path("page.md"), {})


def test_the_cells_of_a_table_are_found():
    table = "| what | PyTorch | fnn |\n|---|---|---|\n| sum | `1 + 1` | `2 + 2` |\n"
    assert [(b.namespace, b.code) for b in cells(table)] == [("PyTorch", "1 + 1"), ("fnn", "2 + 2")]
