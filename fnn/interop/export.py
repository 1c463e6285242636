"""Models as StableHLO files, for processes with JAX and without fnn.

    write('model.bin', predictor(model, params, model_state, x))

and elsewhere

    run = jax.export.deserialize(bytearray(Path('model.bin').read_bytes())).call
    y = run(x)   # any batch size

Needs the package flatbuffers. NamedTuples among inputs and outputs become dicts, because reading
the file would need their classes.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.export import Exported

from fnn.types import Model, ModelState, Params

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def predictor(
    model: Model,
    params: Params,
    model_state: ModelState,
    x: Any,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> Exported:
    """The model with its parameters as constants: `call(x) -> y`, with train=False.

    Args:
      x: an example batch, arrays or ShapeDtypeStructs; all axes but the first are fixed.
      platforms: on which it will run.

    Raises: jax's InconclusiveDimensionOperation for a model that compares the batch size with
      another number while it is traced; its note names the layer.

    >>> from fnn.nn import linear
    >>> model, x = linear(2), jnp.ones((1, 3))
    >>> exported = predictor(model, *model.init(jax.random.key(0), x), x)
    >>> exported.call(jnp.ones((5, 3))).shape
    (5, 2)
    """

    predict = partial(_predict, model, x, params, model_state)
    return export.export(jax.jit(predict), platforms=platforms)(_any_batch(_plain(x)))


def function(
    model: Model,
    params: Params,
    model_state: ModelState,
    x: Any,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> Exported:
    """The model with its parameters as arguments: `call(params, model_state, x) -> y`.

    Args: as of `predictor`; only the shapes of params and model_state are read.
    Raises: as `predictor`.

    >>> from fnn.nn import linear
    >>> model, x = linear(2), jnp.ones((1, 3))
    >>> params, state = model.init(jax.random.key(0), x)
    >>> function(model, params, state, x).call(params, state, jnp.ones((5, 3))).shape
    (5, 2)
    """

    exported = export.export(jax.jit(partial(_predict, model, x)), platforms=platforms)
    return exported(*_shapes((params, model_state)), _any_batch(_plain(x)))


def write(path: str | Path, exported: Exported) -> None:
    """Write the file `path`, whose bytes `jax.export.deserialize` reads.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'sine.bin'
    >>> write(path, predictor(Model(None, lambda p, s, x: (jnp.sin(x), s)), {}, (), jnp.ones(1)))
    >>> jax.export.deserialize(bytearray(path.read_bytes())).call(jnp.zeros(3)).tolist()
    [0.0, 0.0, 0.0]
    """
    Path(path).write_bytes(exported.serialize())


def _predict(model: Model, like: Any, params: Params, model_state: ModelState, plain: Any) -> Any:
    return _plain(model.apply(params, model_state, _restored(like, plain))[0])


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _any_batch(x: Any) -> Any:
    """The shapes of x with a symbolic batch axis."""
    (batch,) = export.symbolic_shape("batch")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), x)


def _plain(x: Any) -> Any:
    """x with dicts in place of NamedTuples."""
    if isinstance(x, tuple) and hasattr(x, "_asdict"):
        return _plain(x._asdict())
    if isinstance(x, dict):
        return {name: _plain(part) for name, part in x.items()}
    return type(x)(map(_plain, x)) if isinstance(x, tuple | list) else x


def _restored(like: Any, plain: Any) -> Any:
    """The inverse of `_plain`, for the structure of `like`."""
    if isinstance(like, tuple) and hasattr(like, "_asdict"):
        return type(like)(**_restored(like._asdict(), plain))
    if isinstance(like, dict):
        return {name: _restored(part, plain[name]) for name, part in like.items()}
    if isinstance(like, tuple | list):
        return type(like)(map(_restored, like, plain))
    return plain
