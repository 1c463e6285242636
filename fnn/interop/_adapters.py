"""What the adapters of other libraries' models share."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fnn._messages import refuse
from fnn.types import PRNGKey

TRAIN = {  # name of an argument -> its value with train=True
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}
Flags = Callable[[bool], dict[str, bool]]  # train -> keyword arguments


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """JAX's promotion of dtypes and ranks as it is by default: other libraries rely on it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def with_zeros(x: PyTree) -> PyTree:
    """Zeros in place of each ShapeDtypeStruct; a jitted init computes nothing from them."""
    return jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype) if isinstance(a, jax.ShapeDtypeStruct) else a, x
    )


def flags(where: str, names: Sequence[str], train: str | None, open_ended: bool = False) -> Flags:
    """The arguments among `names` that say whether the module trains, as a function of `train`.

    Args:
      train: "auto" for all that are known, the name of one, or None for none.
      open_ended: any name is taken, as by **kwargs.
    """
    if train is None:
        return lambda train: {}
    if train == "auto":
        found = {name: value for name, value in TRAIN.items() if name in names}
    elif train in names or open_ended:
        found = {train: TRAIN.get(train, True)}
    else:
        words = f"train to be an argument of the module ({', '.join(names) or 'it has none'})"
        refuse(where, words, train, "pass its name, or None if there is none")
    return lambda train: {name: value == train for name, value in found.items()}


def arguments_of(function: Any) -> tuple[list[str], bool]:
    """The names of a function's arguments after the first, and whether it takes others."""
    _, *rest = inspect.signature(function).parameters.values()
    names = [p.name for p in rest if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return names, any(p.kind == p.VAR_KEYWORD for p in rest)


def refuse_noise(where: str, key: PRNGKey | None, train: bool, why: str = "") -> NoReturn:
    """Raises the ValueError of a module that draws without a key."""
    if train and key is None:
        refuse(where, "a key with train=True", key, "pass key= to the model's apply")
    if train:
        raise ValueError(f"{where}: expected a module that draws from its streams only; {why}")
    raise ValueError(
        f"{where}: expected a module that draws no noise with train=False, got one that does; give "
        "it an argument such as train or deterministic"
    )


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from leaves by path.

    >>> nested({'layers/0/bias': 1, 'layers/1/bias': 2})
    {'layers': {'0': {'bias': 1}, '1': {'bias': 2}}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree
