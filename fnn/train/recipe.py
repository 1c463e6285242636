"""Calling a recipe, and noticing a misspelt hyperparameter."""

import difflib
from collections.abc import Callable, Iterator
from typing import Any

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


def build(recipe: RecipeFunction, hyper: Hyper) -> Recipe:
    """The recipe for `hyper`.

    Raises: ValueError if a dict of hyperparameters has a key that the recipe does not read, or
      lacks one that it does; or if the recipe does not return a Recipe.
    """
    watched = _Watched(hyper) if isinstance(hyper, dict) else hyper
    built = recipe(watched)
    if not isinstance(built, Recipe):
        raise ValueError(
            f"recipe: expected a Recipe from recipe(hyper), got {type(built).__name__}; "
            "return Recipe(model=, loss=, optimizer=, schedule=)"
        )
    if isinstance(watched, _Watched) and watched.unread:
        raise ValueError(
            "recipe: expected only keys that recipe(hyper) reads, got also "
            f"{sorted(watched.unread)}; correct the name, or leave it out"
        )
    return built
