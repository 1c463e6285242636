"""Calling a recipe, and noticing a misspelt hyperparameter."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from fnn.types import Hyper, Recipe

RecipeFunction = Callable[[Any], Recipe]


class _Watched(dict):
    """A dict of hyperparameters that remembers which of its keys were read."""

    def __init__(self, hyper: dict[str, Any]):
        super().__init__(hyper)
        self.unread = set(hyper)

    def __getitem__(self, name: str) -> Any:
        self.unread.discard(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Any:
        close = difflib.get_close_matches(name, self, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; add it to hyper"
        raise ValueError(f"recipe: expected hyper[{name!r}], got only {sorted(self)}{hint}")

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default

    def __iter__(self) -> Iterator[str]:
        self.unread.clear()
        return super().__iter__()

    def keys(self):
        self.unread.clear()
        return super().keys()

    def values(self):
        self.unread.clear()
        return super().values()

    def items(self):
        self.unread.clear()
        return super().items()


# A recipe may map over its hyperparameters as over any pytree; all of them count as read then.
jax.tree_util.register_pytree_node(
    _Watched,
    lambda hyper: ([hyper[name] for name in sorted(hyper)], sorted(hyper)),
    lambda names, leaves: _Watched(dict(zip(names, leaves, strict=True))),
)


def watch(hyper: Hyper) -> Hyper:
    """`hyper`, which notes what is read of it if it is a dict; see `expect_all_read`."""
    return _Watched(hyper) if type(hyper) is dict else hyper


def expect_all_read(hyper: Hyper) -> None:
    """Refuse a watched dict with keys that nothing has read by the end of a step.

    Raises: ValueError with the keys.
    """
    if isinstance(hyper, _Watched) and hyper.unread:
        raise ValueError(
            "recipe: expected only keys that recipe(hyper) reads, got also "
            f"{sorted(hyper.unread)}; correct the name, or leave it out"
        )


def build(recipe: RecipeFunction, hyper: Hyper) -> Recipe:
    """The recipe for `hyper`.

    Raises: ValueError if the recipe reads a key that a dict of hyperparameters lacks, does not
      return a Recipe, or names devices that are none or the same.
    """
    built = recipe(watch(hyper))
    if not isinstance(built, Recipe):
        raise ValueError(
            f"recipe: expected a Recipe from recipe(hyper), got {type(built).__name__}; "
            "return Recipe(model=, loss=, optimizer=, schedule=)"
        )
    _expect_devices(built.devices)
    return built


def _expect_devices(devices: Any) -> None:
    listed = list(devices) if isinstance(devices, Sequence) else [None]
    if not all(isinstance(d, jax.Device) for d in listed) or len(set(listed)) < len(listed):
        raise ValueError(
            f"Recipe.devices: expected distinct devices, such as jax.devices(), got {devices!r}; "
            "name each once"
        )
