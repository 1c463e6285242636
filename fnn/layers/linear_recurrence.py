"""A recurrence that is linear in its state: an associative scan of depth log2(time)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer

from fnn.activations import sigmoid
from fnn.autodiff import linear_call
from fnn.dtypes import at_least_float32
from fnn.initializers import Initializer, lecun_normal, ones, zeros
from fnn.keys import fold_name
from fnn.layers.linear import linear, linear_init
from fnn.layers.sequence import expect_carry, keep_real, real_steps
from fnn.types import Params, PRNGKey


def _compose(first: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
    """The composition of two maps h -> a h + b, which is associative."""
    return first[0] * then[0], then[0] * first[1] + then[1]


@jax.custom_jvp
def linear_scan(
    decay: Float[Array, "batch time *features"], drive: Float[Array, "batch time *features"]
) -> Float[Array, "batch time *features"]:
    """h_t = a_t h_(t-1) + b_t from h_0 = 0, elementwise, by an associative scan over time.

    Its derivative is the same recurrence backward in time; by hand, it compiles faster than the
    derivative of the scan and saves h alone.

    Args:
      decay: a.
      drive: b, of the same shape and dtype.

    Returns: h_1, h_2, ..., of the same shape and dtype.
    Source: Blelloch 1990, Prefix sums and their applications, section 1.4; for neural nets Martin
      & Cundy 2018, arXiv:1709.04057, section 2.

    >>> linear_scan(jnp.array([[0.5, 0.5, 2.0]]), jnp.array([[4.0, 0.0, 1.0]])).tolist()
    [[4.0, 2.0, 5.0]]
    """
    return lax.associative_scan(_compose, (decay, drive), axis=1)[1]


@linear_scan.defjvp
def _linear_scan_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (decay, drive), (ddecay, ddrive) = primals, tangents
    h = linear_scan(decay, drive)
    return h, linear_call(_by_both, _by_both_transposed, (decay, h), (ddecay, ddrive))


def _by_both(saved: tuple[Array, Array], tangents: tuple[Array, Array]) -> Array:
    decay, h = saved
    ddecay, ddrive = tangents
    return linear_scan(decay, ddecay * _before(h) + ddrive)


def _by_both_transposed(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    decay, h = saved
    later = jnp.concatenate([decay[:, 1:], jnp.zeros_like(decay[:, :1])], axis=1)
    ddrive = jnp.flip(linear_scan(jnp.flip(later, axis=1), jnp.flip(g, axis=1)), axis=1)
    return ddrive * _before(h), ddrive


def _before(h: Array) -> Array:
    return jnp.concatenate([jnp.zeros_like(h[:, :1]), h[:, :-1]], axis=1)


def linear_recurrence_cell_init(
    key: PRNGKey,
    in_features: int,
    hidden: int,
    *,
    kernel_init: Initializer = lecun_normal(),
    gate_bias_init: Initializer = ones,
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `linear_recurrence_cell` and `linear_recurrence`.

    Args:
      in_features: I.
      hidden: H, the size of the state.
      kernel_init: initializer of both kernels.
      gate_bias_init, bias_init: initializers of the biases of the gate and of the candidate. A
        bias of 1 keeps sigmoid(1) = 73% of the state at each step, like the forget gate of an LSTM.

    Returns: {'gate': {'kernel': (I, H), 'bias': (H,)}, 'candidate': the same}, float32.

    >>> params = linear_recurrence_cell_init(jax.random.key(0), 3, 4)
    >>> sorted(params), params['gate']['kernel'].shape
    (['candidate', 'gate'], (3, 4))
    """

    def part(name: str, bias: Initializer) -> Params:
        part_key = fold_name(key, name)
        return linear_init(part_key, in_features, hidden, kernel_init=kernel_init, bias_init=bias)

    return {"gate": part("gate", gate_bias_init), "candidate": part("candidate", bias_init)}


def _decay_and_drive(params: Params, x: Array) -> tuple[Array, Array]:
    gate = sigmoid(linear(params["gate"], x))
    drive = (1 - gate) * jnp.tanh(linear(params["candidate"], x))
    wide = at_least_float32(drive)  # the state is a sum over many steps
    return gate.astype(wide), drive.astype(wide)


def linear_recurrence_cell(
    params: Params, carry: Float[Array, "..."], x: Float[Array, "*batch in"]
) -> tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]:
    """The gated impulse linear recurrent cell: its gates depend on the input alone.

        g = sigmoid(x W_g + b_g),    h' = g h + (1 - g) tanh(x W + b)

    Args:
      params: from `linear_recurrence_cell_init`.
      carry: h (*batch, hidden) in at least float32; zeros to start.
      x: (*batch, in_features), one time step.

    Returns: h' twice, as the carry and, in the dtype of x, as the output.
    Raises: ValueError if x or the carry do not fit the parameters.
    Source: Martin & Cundy 2018, arXiv:1709.04057, the GILR layer.

    >>> params = linear_recurrence_cell_init(jax.random.key(0), 3, 4)
    >>> linear_recurrence_cell(params, jnp.zeros((2, 4)), jnp.ones((2, 3)))[1].shape
    (2, 4)
    """
    decay, drive = _decay_and_drive(params, x)
    expect_carry("linear_recurrence", drive, carry)
    h = decay * carry + drive
    return h, h.astype(x.dtype)


def linear_recurrence(
    params: Params,
    x: Float[Array, "..."],
    *,
    carry: Float[Array, "..."] | None = None,
    lengths: Integer[Array, "..."] | None = None,
) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch time hidden"]]:
    """`linear_recurrence_cell` over time, by an associative scan in at least float32.

    On a GPU or TPU all steps run in parallel; on a CPU it takes about the time of
    `scan_cell(linear_recurrence_cell, ...)`.

    Args:
      params: from `linear_recurrence_cell_init`.
      x: (batch, time, in_features), at least one step.
      carry: the state to start from, (batch, hidden) in at least float32; None for zeros.
      lengths: number of real steps of each sequence, in [0, time]; None for all.

    Returns: the state after each sequence's last real step (batch, hidden) in at least float32,
      and those of all steps (batch, time, hidden) in the dtype of x, 0 at padding.
    Raises: ValueError if x, the carry or the lengths do not fit.
    Source: Martin & Cundy 2018, arXiv:1709.04057, section 2 and the GILR layer.

    >>> params = linear_recurrence_cell_init(jax.random.key(0), 3, 4)
    >>> carry, y = linear_recurrence(params, jnp.ones((2, 5, 3)))
    >>> carry.shape, y.shape
    ((2, 4), (2, 5, 4))
    """
    if x.ndim != 3:
        raise ValueError(
            f"linear_recurrence: expected x of shape (batch, time, features), got {x.shape}; "
            "put the batch first, or use linear_recurrence_cell for a single step"
        )
    valid = real_steps("linear_recurrence", x, lengths)
    decay, drive = _decay_and_drive(params, keep_real(x, valid))
    decay, drive = keep_real(decay, valid, fill=1), keep_real(drive, valid)  # h_t = 1 h_(t-1) + 0
    if carry is not None:
        expect_carry("linear_recurrence", drive[:, 0], carry)
        drive = drive.at[:, 0].add(decay[:, 0] * carry)
    h = linear_scan(decay, drive)
    return h[:, -1], keep_real(h, valid).astype(x.dtype)
