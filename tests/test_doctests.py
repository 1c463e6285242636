"""Every example in a docstring runs, and every public function has one."""

import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

MODULES = ["fnn", *(m.name for m in pkgutil.walk_packages(fnn.__path__, "fnn."))]
for _name in MODULES:
    importlib.import_module(_name)


NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[+-]?\d+)?(?!\w)")


class Checker(doctest.OutputChecker):
    """Numbers may differ by float32 rounding, which is not the same on every processor."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or (
            NUMBER.split(want) == NUMBER.split(got)
            and np.allclose(
                *([float(n) for n in NUMBER.findall(text)] for text in (want, got)),
                rtol=1e-6,  # a few roundings of 6e-8
                atol=1e-7,
            )
        )


def own(module: Any) -> Iterator[tuple[str, Any]]:
    """The functions and classes that a module defines, with the methods of its classes."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            for method in filter(inspect.isfunction, vars(value).values()):
                if method.__qualname__.startswith(name):  # a default value may be a function too
                    yield f"{name}.{method.__name__}", method


# Of parts whose own examples run: what takes seconds to compile.
SLOW = {
    "fnn.data.augment.audio", "fnn.data.augment.color", "fnn.models.bert", "fnn.models.dit",
    "fnn.nn.moe", "fnn.nn.recurrent", "fnn.models.vit",
    "fnn.testing.optimizer_laws",
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in MODULES]
)
def test_the_examples_of_a_module_run_as_they_are_written(name):
    # doctest's own finder passes over functions that the shape checks of jaxtyping have wrapped.
    module = sys.modules[name]
    runner = doctest.DocTestRunner(Checker(), optionflags=doctest.ELLIPSIS, verbose=False)
    report: list[str] = []
    for place, value in [("", module), *own(module)]:
        given = {"jax": jax, "jnp": jnp, "np": np, **vars(module)}
        example = doctest.DocTestParser().get_doctest(
            inspect.getdoc(value) or "", given, f"{name}.{place}", name, 0
        )
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


def exported(module: Any) -> Iterator[tuple[str, Any]]:
    """What users call: the names that a package gathers, and those of the files at the top."""
    listed = getattr(module, "__all__", vars(module))
    for name, value in vars(module).items():
        home = getattr(value, "__module__", "") or ""
        if name in listed and not name.startswith("_") and home.startswith(module.__name__):
            yield name, value


TOP = [
    name
    for name in MODULES
    if "._" not in name
    and (name.count(".") == 1 or hasattr(sys.modules[name], "__path__") or ".models." in name)
]


@pytest.mark.parametrize("name", TOP)
def test_every_public_function_says_what_it_does_and_shows_it(name):
    for place, value in exported(sys.modules[name]):
        if inspect.isfunction(value):
            assert ">>>" in (value.__doc__ or ""), f"{name}.{place} has no example in its docstring"
        elif inspect.isclass(value) and not getattr(value, "_is_protocol", False):
            # Types are shown by the functions that make them.
            assert value.__doc__, f"{name}.{place} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_every_function_without_an_underscore_has_a_docstring(name):
    assert sys.modules[name].__doc__, f"{name} has no docstring"
    if "._" in name:
        return
    for place, value in own(sys.modules[name]):
        if not any(part.startswith("_") for part in place.split(".")):
            assert inspect.getdoc(value), f"{name}.{place} has no docstring"


@pytest.mark.parametrize("wrong", ["3", "[2]", "2.00001"])
def test_an_example_that_is_wrong_is_found(wrong):
    example = doctest.DocTestParser().get_doctest(f">>> 1 + 1\n{wrong}\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(Checker()).run(example, out=lambda _: None).failed == 1
