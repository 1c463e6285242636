"""What a package exports is what its `__all__` says, and `help` shows it."""

import ast
import importlib
import inspect
import pkgutil
import pydoc
from pathlib import Path

import pytest

import fnn
from fnn import types

ROOT = Path(fnn.__file__).parent
PACKAGES = sorted(
    ".".join(("fnn", *file.parent.relative_to(ROOT).parts)) for file in ROOT.rglob("__init__.py")
)


def gathered(name: str) -> set[str]:
    """The names without an underscore that the `__init__` of a package imports from fnn."""
    code = ast.parse(Path(importlib.import_module(name).__file__).read_text())
    froms = [n for n in code.body if isinstance(n, ast.ImportFrom) and n.module.startswith("fnn")]
    names = {alias.asname or alias.name for node in froms for alias in node.names}
    return names - {"check_exports"}


def test_every_package_is_looked_at():
    found = {m.name for m in pkgutil.walk_packages(fnn.__path__, "fnn.") if m.ispkg}
    assert {"fnn", *found} == set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_what_the_package_exports(name):
    module = importlib.import_module(name)
    parts = set(fnn._PARTS) if name == "fnn" else set()
    assert sorted(module.__all__) == sorted(gathered(name) | parts)  # each once
    scope: dict = {}
    exec(f"from {name} import *", scope)
    assert scope.keys() - {"__builtins__"} == set(module.__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_help_of_a_package_lists_what_it_exports(name):
    module = importlib.import_module(name)
    shown = pydoc.render_doc(module, renderer=pydoc.plaintext)
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isfunction(value):
            assert f"    {public}(" in shown, f"help({name}) does not list {public}"
        elif inspect.isclass(value):
            assert f"class {public}" in shown, f"help({name}) does not list {public}"


@pytest.mark.parametrize(
    ("name", "contract"),
    {
        "Init": "init(key, x) -> params, model_state",
        "Apply": "apply(params, model_state, x, *, key=None, train=False) -> outputs, model_state",
        "Model": "apply(params, model_state, x, *, key=None, train=False) -> outputs, model_state",
        "Update": "update(grads, state, params, lr, objective=None) -> updates, state",
        "Optimizer": "update(grads, state, params, lr, objective=None) -> updates, state",
        "Transform": "update(grads, state, params) -> grads, state",
        "Gradient": "gradient(loss, params, model_state, batch, key) -> sums, grads",
        "Schedule": "schedule(step) -> learning rate",
        "Loss": "loss(outputs, targets)",
        "Metric": "measure(outputs, targets) -> sums",
        "Measure": "measure(view) -> {name: scalar or small vector}",
        "Decoder": "init(params, batch, length) -> carry",
    }.items(),
)
def test_help_of_a_contract_tells_it(name, contract):
    assert contract in inspect.getdoc(getattr(types, name))
    assert contract in pydoc.render_doc(getattr(types, name), renderer=pydoc.plaintext)


def test_no_class_of_the_contracts_has_the_docstring_of_another():
    for name, value in vars(types).items():
        if inspect.isclass(value) and value.__module__ == types.__name__:
            assert "__doc__" in vars(value) and value.__doc__, name
            assert not value.__doc__.startswith((f"{name}(", "Base class")), name
