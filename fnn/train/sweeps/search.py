"""Search spaces: every combination of values, random draws, or a list, as stacked arrays.

The settings of a sweep are hyperparameters whose leaves have a leading axis, as for `jax.vmap`. The
functions here make such arrays; any others can be used as well.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from fnn._arguments import check_exports
from fnn.keys import fold_name
from fnn.recipe import RecipeFunction
from fnn.types import Hyper, PRNGKey

Settings = Any  # a Hyper with a leading axis of settings at each leaf
Draw = Callable[[PRNGKey, int], Num[Array, " n"]]  # (key, n) -> n values


def grid(**axes: Any) -> dict[str, Num[Array, " settings"]]:
    """Every combination of the values of each hyperparameter; the last one varies fastest.

    Args:
      axes: a sequence or an array of values for each name, such as `np.geomspace(1e-4, 1e-1, 16)`;
        a single number is the same in all settings.

    Returns: for each name the values of all settings.
    Raises: ValueError for an axis without values, or with more than one dimension.

    >>> settings = grid(lr=[0.5, 0.25], weight_decay=[0.0, 1.0], warmup_steps=5)
    >>> settings['lr'].tolist(), settings['warmup_steps'].tolist()
    ([0.5, 0.5, 0.25, 0.25], [5, 5, 5, 5])
    """
    values = [_axis(f"search.grid: {name}", axis) for name, axis in axes.items()]
    indices = np.meshgrid(*[np.arange(len(v)) for v in values], indexing="ij")
    return {name: axis[i.ravel()] for name, axis, i in zip(axes, values, indices, strict=True)}


def _axis(where: str, values: Any) -> Array:
    array = jnp.atleast_1d(jnp.asarray(values))
    if array.ndim != 1 or not len(array):
        raise ValueError(
            f"{where}: expected a number or a sequence of numbers, got shape {array.shape}; "
            "stack arrays with search.listed"
        )
    return array


def random(key: PRNGKey, n: int, /, **axes: Draw | float) -> dict[str, Num[Array, " settings"]]:
    """n settings, each drawn independently.

    Of each hyperparameter, n draws try n values, whereas a grid tries only a root of n.

    Args:
      key: typed key; each name has its own stream, so adding a name does not change other draws.
      n: number of settings, at least 1.
      axes: a distribution for each name, such as `log_uniform(1e-4, 1e-1)`; a number is the same in
        all settings.

    Raises: ValueError for n below 1.
    Source: Bergstra & Bengio 2012, "Random search for hyper-parameter optimization".

    >>> settings = random(jax.random.key(0), 100, lr=log_uniform(1e-4, 1e-1), rate=0.2)
    >>> bool((settings['lr'] >= 1e-4).all() and (settings['lr'] < 1e-1).all())
    True
    >>> settings['rate'].shape
    (100,)
    """
    if n < 1:
        raise ValueError(f"search.random: expected n to be 1 or more, got {n}; draw some settings")
    return {
        name: draw(fold_name(key, name), n) if callable(draw) else jnp.repeat(jnp.asarray(draw), n)
        for name, draw in axes.items()
    }


def uniform(low: float, high: float) -> Draw:
    """Uniform distribution between `low` and `high`.

    Raises: ValueError unless low < high.

    >>> values = uniform(2.0, 4.0)(jax.random.key(0), 1000)
    >>> abs(values.mean().item() - 3) < 0.1
    True
    """
    _expect_between("search.uniform", -float("inf"), low, high)
    return lambda key, n: jax.random.uniform(key, (n,), minval=low, maxval=high)


def log_uniform(low: float, high: float) -> Draw:
    """Log-uniform distribution between `low` and `high`.

    Raises: ValueError unless 0 < low < high.

    >>> values = log_uniform(1e-4, 1e-2)(jax.random.key(0), 1000)
    >>> abs((values < 1e-3).mean().item() - 0.5) < 0.1
    True
    """
    _expect_between("search.log_uniform", 0.0, low, high)
    exponents = uniform(float(np.log(low)), float(np.log(high)))
    return lambda key, n: jnp.clip(jnp.exp(exponents(key, n)), low, high)


def choice(values: Sequence[float]) -> Draw:
    """Uniform distribution over `values`.

    Raises: ValueError for no values.

    >>> sorted(set(choice([1, 2, 3])(jax.random.key(0), 100).tolist()))
    [1, 2, 3]
    """
    array = _axis("search.choice", values)
    return lambda key, n: array[jax.random.randint(key, (n,), 0, len(array))]


def _expect_between(where: str, least: float, low: float, high: float) -> None:
    if not least < low < high < float("inf"):
        above = "" if least == -float("inf") else f"{least:g} < "
        raise ValueError(f"{where}: expected {above}low < high, got {low} and {high}; swap them?")


def listed(settings: Sequence[Hyper]) -> Settings:
    """The settings of an explicit list: hyperparameters of one structure, stacked.

    Raises: ValueError for an empty list, and for settings that differ in structure.

    >>> listed([{'lr': 0.5, 'warmup_steps': 10}, {'lr': 0.25, 'warmup_steps': 20}])['lr'].tolist()
    [0.5, 0.25]
    """
    if not settings:
        raise ValueError("search.listed: expected settings, got an empty list; add one")
    structures: list[Any] = [jax.tree.structure(one) for one in settings]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            raise ValueError(
                f"search.listed: expected all settings like the first, {structures[0]}, got "
                f"{structure} at index {i}; give each the same names"
            )
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *settings)


def cross(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, Num[Array, "settings ..."]]:
    """Every setting of `first` with every setting of `second`, which varies fastest.

    Raises: ValueError for a name that both have.

    >>> pairs = listed([{'b1': 0.5, 'b2': 0.75}, {'b1': 0.0, 'b2': 0.5}])
    >>> both = cross(grid(lr=[0.5, 0.25]), pairs)
    >>> both['lr'].tolist(), both['b2'].tolist()
    ([0.5, 0.5, 0.25, 0.25], [0.75, 0.5, 0.75, 0.5])
    """
    shared = sorted(first.keys() & second.keys())
    if shared:
        raise ValueError(f"search.cross: expected different names, got {shared} twice; drop one")
    n, m = (len(jax.tree.leaves(settings)[0]) for settings in (first, second))
    outer = {name: jnp.repeat(jnp.asarray(leaf), m, axis=0) for name, leaf in first.items()}
    inner = {
        name: jnp.tile(jnp.asarray(leaf), (n,) + (1,) * (jnp.ndim(leaf) - 1))
        for name, leaf in second.items()
    }
    return outer | inner


class Group(NamedTuple):
    """One of several recipes in a sweep, with the static values that distinguish it."""

    shape: dict[str, Any]
    recipe: RecipeFunction


def shapes(make_recipe: Callable[..., RecipeFunction], /, **axes: Sequence[Any]) -> list[Group]:
    """Recipes for every combination of static values: widths, depths, whole optimizers.

    Args:
      make_recipe: called with one value of each axis by name, returns a recipe.
      axes: values of any kind; each becomes a column of the sweep's table.

    Raises: ValueError for an axis without values.

    >>> groups = shapes(lambda width, depth: lambda hyper: None, width=[64, 128], depth=[1, 2])
    >>> [group.shape for group in groups][:2]
    [{'width': 64, 'depth': 1}, {'width': 64, 'depth': 2}]
    """
    for name, values in axes.items():
        if not len(values):
            raise ValueError(f"search.shapes: {name}: expected values, got none; add one")
    combinations = [
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    ]
    return [Group(shape, make_recipe(**shape)) for shape in combinations]


check_exports(__name__, prefix="search.")
