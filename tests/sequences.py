"""What the tests of recurrent layers share: layers, parameters, sequences, and how to compare."""

import jax
import jax.numpy as jnp
import numpy as np

from fnn import layers
from fnn.layers import LSTMCarry

# Two ways to the same float32 sums of a few dozen terms, through a few steps: some ten roundings
# of 6e-8, as a share of the largest entry.
SAME = 2e-6

B, T, IN, H = 3, 5, 3, 2

LAYERS = {
    "rnn": (layers.rnn, layers.rnn_cell, layers.rnn_cell_init),
    "lstm": (layers.lstm, layers.lstm_cell, layers.lstm_cell_init),
    "gru": (layers.gru, layers.gru_cell, layers.gru_cell_init),
    "linear_recurrence": (
        layers.linear_recurrence,
        layers.linear_recurrence_cell,
        layers.linear_recurrence_cell_init,
    ),
}


def numbers(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def drawn(kind, seed=1):
    """Parameters of a kind, all random: zeros would hide a bias that is not used."""
    shapes = jax.eval_shape(lambda key: LAYERS[kind][2](key, IN, H), jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    values = [jnp.asarray(numbers(*leaf.shape, seed=seed + i)) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, values)


PARAMS = {kind: drawn(kind) for kind in LAYERS}
CARRIES = {kind: jnp.asarray(numbers(B, H, seed=3)) for kind in LAYERS}
CARRIES["lstm"] = LSTMCarry(hidden=CARRIES["rnn"], cell=CARRIES["rnn"][::-1])
X = jnp.asarray(numbers(B, T, IN, seed=2))
LENGTHS = jnp.array([5, 2, 0])  # all steps, some, none
REAL = np.arange(T)[None] < np.asarray(LENGTHS)[:, None]  # (B, T), False at padding


def weighted_sum(tree):
    """A scalar in which every number of the outputs has a weight of its own."""
    leaves = jax.tree.leaves(tree)
    return sum(
        jnp.vdot(jnp.asarray(numbers(*leaf.shape, seed=20 + i, dtype=leaf.dtype)), leaf)
        for i, leaf in enumerate(leaves)
    )


def with_gradients(function):
    """The outputs, and the gradients of their weighted sum by all arguments, as one program."""

    @jax.jit
    def program(*args):
        def total(*args):
            outputs = function(*args)
            return weighted_sum(outputs), outputs

        gradients, outputs = jax.grad(total, argnums=tuple(range(len(args))), has_aux=True)(*args)
        return outputs, gradients

    return program


def expect_close(got, expected, rtol):
    """Alike but for `rtol` of the largest entry of each leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, path
        largest = np.abs(b).max(initial=0.0)
        assert np.abs(a - b).max(initial=0.0) <= rtol * largest, path


def expect_equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)
