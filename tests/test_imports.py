"""The house: what each part of fnn may import, found by reading the code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "fnn"
# fmt: off
ROWS = {
    1: [
        "types", "weighted", "show", "dtypes", "tree", "keys", "xla", "autodiff", "expect",
        "flops", "_messages", "_arguments",
    ],
    2: [
        "initializers", "activations", "losses", "metrics", "measures", "_recipe_check", "recipe",
        "schedules", "order", "scaling",
    ],
    3: ["layers", "optim"],
    4: ["nn", "models"],
    5: ["train", "generate", "diagnose", "plan"],
    6: ["data", "checkpoint", "report", "interop", "testing"],
}
# fmt: on
ROW = {part: row for row, parts in ROWS.items() for part in parts}
# Laws compare what is compiled; an export is jitted, and so is a primitive outside of a jit.
MAY_JIT = {*ROWS[5], "testing", "interop", "autodiff", "xla"}
OTHERS = {"optax", "torch", "flax", "equinox", "keras", "haiku", "transformers"}
EXTRAS = [
    "matplotlib",
    "rich",
    "safetensors",
    "sklearn",
    "tyro",
    "optax",
    "torch",
    "flax",
    "beartype",
]
FILES = sorted(ROOT.rglob("*.py"))


def part_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """The modules that the code imports, anywhere: 'fnn.tree', 'jax', ..."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "fnn uses absolute imports"
            whole = node.module == "fnn"
            names |= {f"fnn.{a.name}" for a in node.names} if whole else {node.module}
    return names


def is_allowed(part: str, other: str) -> bool:
    """Whether files of one part of the house may import another."""
    if part == other:
        return True
    if {part, other} == {"layers", "optim"}:
        return False
    if ROW[part] == 5:
        return ROW[other] in (1, 2, 5)
    if part == "testing":  # its laws of recipes train them
        return ROW[other] == 1 or other in ("recipe", "train")
    return ROW[other] <= ROW[part]


def faults(part: str, code: str) -> list[str]:
    """What a file of `part` does that it must not do."""
    found, tree = [], ast.parse(code)
    for name in sorted(imported(tree)):
        first, *rest = name.split(".")
        if first == "fnn" and not (rest and rest[0] in ROW and is_allowed(part, rest[0])):
            found.append(f"imports {name}")
        adapted = part == "interop" and first in {"flax", "equinox", "haiku"}
        if first in {"experiments", "tests", *OTHERS} and not adapted:
            found.append(f"imports {name}")
    if part not in MAY_JIT and any(is_jit(node) for node in ast.walk(tree)):
        found.append("calls jax.jit")
    return found


def is_jit(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "jax" and any(alias.name == "jit" for alias in node.names)
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "jax.jit"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_from_the_rows_above_its_own(file):
    if file == ROOT / "__init__.py":  # the door: the rest is imported when first used
        assert {name for name in imported(ast.parse(file.read_text())) if "fnn" in name} == {
            "fnn.types",
            "fnn.recipe",
        }
        return
    assert part_of(file) in ROW, f"give {part_of(file)!r} a row of the house in this file"
    assert faults(part_of(file), file.read_text()) == []


def test_the_parts_of_a_row_do_not_import_each_other_in_a_circle():
    needs = {part: set() for part in ROW}
    for file in [file for file in FILES if part_of(file) in ROW]:
        names = {n.split(".")[1] for n in imported(ast.parse(file.read_text())) if "fnn." in n}
        needs[part_of(file)] |= names - {part_of(file)}
    while free := [part for part, others in needs.items() if not others & needs.keys()]:
        for part in free:
            del needs[part]
    assert not needs, f"these parts import each other: {needs}"


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("types", "from fnn.tree import count\nfrom fnn.losses import cross_entropy"),
        ("layers", "from fnn.models import mlp"),
        ("layers", "from fnn import optim"),
        ("train", "from fnn.layers import linear"),
        ("diagnose", "from fnn import models"),
        ("testing", "from fnn.losses import cross_entropy"),
        ("optim", "import optax"),
        ("models", "def f():\n    import torch.nn"),
        ("data", "import experiments.digits"),
        ("report", "import fnn"),
        ("models", "y = jax.jit(f)(x)"),
        ("checkpoint", "from jax import jit"),
        ("optim", "@partial(jax.jit, static_argnums=0)\ndef f(x): ..."),
    ],
)
def test_a_forbidden_import_is_found(part, code):
    assert len(faults(part, code)) == 1


def test_importing_fnn_imports_no_extra():
    parts = ["fnn", *(f"fnn.{part}" for row in (1, 2, 3, 4, 5) for part in ROWS[row])]
    present = [name for name in parts if name == "fnn" or _exists(name.removeprefix("fnn."))]
    code = (
        f"import sys, importlib\nfor name in {present}: importlib.import_module(name)\n"
        f"print([name for name in {EXTRAS} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def _exists(part: str) -> bool:
    return (ROOT / part).is_dir() or (ROOT / f"{part}.py").is_file()
