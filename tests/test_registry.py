"""Every public function of the first four rows of the house has a row in the registry."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import fnn
from fnn import models
from tests import registry

PARTS = [
    "activations", "initializers", "layers", "losses", "metrics", "nn", "optim",
    "optim.contrib", "order", "schedules", *(f"models.{name}" for name in models.__all__),
]  # fmt: skip
KINDS = [
    "MODELS", "FUNCTIONS", "LOSSES", "INITIALIZERS", "OPTIMIZERS", "TRANSFORMS", "SCHEDULES",
    "METRICS",
]  # fmt: skip


def public_functions(part: str) -> set[str]:
    """What users find at `fnn.part`: the exports of a package, the functions of a file."""
    module = importlib.import_module(f"fnn.{part}")
    return functions_of(module, f"fnn.{part}") & set(getattr(module, "__all__", vars(module)))


def functions_of(module: Any, home: str) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if callable(value)
        and not inspect.isclass(value)
        and (getattr(value, "__module__", None) or "").startswith(home)
        and not name.startswith("_")
    }


def names_in(tree: ast.AST) -> set[str]:
    """Every name that a piece of code mentions: f, layers.f and `from ... import f`."""
    return {
        name
        for node in ast.walk(tree)
        for name in (getattr(node, "id", None), getattr(node, "attr", None), *imports_of(node))
        if name
    }


def imports_of(node: ast.AST) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []


def sources(folder: Path) -> list[ast.Module]:
    files = [file for file in folder.rglob("*.py") if file.name != "__init__.py"]
    return [ast.parse(file.read_text()) for file in files]


def layers_under_test() -> set[str]:
    """What the models and the rows are made of, and what that is made of, and so on."""
    house, rows = Path(fnn.__file__).parent, Path(registry.__file__).parent
    used = set().union(
        *map(names_in, [*sources(house / "nn"), *sources(house / "models"), *sources(rows)])
    )
    bodies = {
        node.name: names_in(node)
        for module in sources(house / "layers")
        for node in module.body
        if isinstance(node, ast.FunctionDef)
    }
    while more := set().union(*(bodies[name] for name in used & bodies.keys())) - used:
        used |= more
    return used


def without_a_row(part: str, functions: set[str]) -> set[str]:
    rows = {row.name.split()[0].rstrip(",") for kind in KINDS for row in getattr(registry, kind)}
    helpers = {name.split(".")[-1] for name in registry.HELPERS if name.startswith(f"{part}.")}
    return functions - rows - helpers - (layers_under_test() if part == "layers" else set())


@pytest.mark.parametrize("part", PARTS)
def test_every_public_function_has_a_row(part):
    missing = without_a_row(part, public_functions(part))
    assert not missing, (
        f"fnn.{part}: {sorted(missing)} have no row: add one to a file of tests/registry, or name "
        "them in its HELPERS where no law applies"
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_function_without_a_row_is_found(part):
    assert without_a_row(part, {"no_such_function"}) == {"no_such_function"}
    assert public_functions(part) or part == "models.transformer"  # which exports a config alone


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_comes_twice(kind):
    names = [row.name for row in getattr(registry, kind)]
    assert names
    assert sorted(set(names)) == sorted(names)


def test_a_helper_is_a_function_that_exists():
    for helper in registry.HELPERS:
        part, function = helper.split(".")[0], helper.split(".")[-1]
        package = importlib.import_module(f"fnn.{part}")
        inside = pkgutil.walk_packages(getattr(package, "__path__", []), f"fnn.{part}.")
        modules = [package, *(importlib.import_module(module.name) for module in inside)]
        found = set().union(*(functions_of(module, "fnn.") for module in modules))
        assert function in found, f"HELPERS names {helper}, which is not there"
