"""Mixture of experts: a router sends each token to a few of many multi-layer perceptrons.

No token is dropped. The N k rows (k experts for each of N tokens) are sorted by expert into blocks
of equal size, each of a single expert, with the last block of an expert padded; a loop over the
blocks multiplies each by the kernels of its expert. About 4 E blocks for E experts add at most a
quarter more rows, as much as the usual capacity factor of 1.25, and an output never depends on the
rest of the batch or on later tokens of the sequence.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.activations import silu, softmax
from fnn.autodiff import linear_call, varying_like
from fnn.dtypes import at_least_float32
from fnn.expect import expect_floats
from fnn.initializers import Initializer, lecun_normal
from fnn.keys import fold_name
from fnn.layers.linear import linear, linear_init
from fnn.types import Params, PRNGKey
from fnn.xla import Dim, is_symbolic

_DEFAULT_BLOCK = 16  # rows of a block, where the number of tokens is not known


def moe_init(
    key: PRNGKey,
    in_features: int,
    hidden_features: int,
    num_experts: int,
    *,
    out_features: int | None = None,
    gated: bool = True,
    kernel_init: Initializer = lecun_normal(),
    router_init: Initializer = lecun_normal(),
) -> Params:
    """Parameters of `moe`.

    Args:
      hidden_features: width of each expert.
      num_experts: E.
      out_features: in_features if None.
      gated: True for gated MLPs, with three kernels; False for plain ones, with two.
      kernel_init: initializer of each expert's kernels.
      router_init: initializer of the router's kernel.

    Returns: {'router': {'kernel': (in, E)}, 'experts': {'up': {'kernel': (E, in, hidden)}, 'down':
      {'kernel': (E, hidden, out)}}}, float32; if gated, also 'gate' among the experts, like 'up'.

    >>> params = moe_init(jax.random.key(0), 3, 8, num_experts=4)
    >>> params['experts']['down']['kernel'].shape
    (4, 8, 3)
    """
    out = in_features if out_features is None else out_features
    sizes = {"up": (in_features, hidden_features), "down": (hidden_features, out)}
    if gated:
        sizes["gate"] = (in_features, hidden_features)

    def expert_init(key: PRNGKey) -> Params:
        return {
            name: linear_init(fold_name(key, name), *size, bias=False, kernel_init=kernel_init)
            for name, size in sizes.items()
        }

    router_key, experts_key = fold_name(key, "router"), fold_name(key, "experts")
    router = linear_init(router_key, in_features, num_experts, bias=False, kernel_init=router_init)
    keys = jax.vmap(lambda i: jax.random.fold_in(experts_key, i))(jnp.arange(num_experts))
    return {"router": router, "experts": jax.vmap(expert_init)(keys)}


def normalize_gates(probabilities: Float[Array, "*n k"]) -> Float[Array, "*n k"]:
    """The top-k probabilities divided by their sum: `gates` of `moe` as in Mixtral.

    With one expert per token, the router gets no gradient from the output through these.

    >>> normalize_gates(jnp.array([[0.25, 0.25]])).tolist()
    [[0.5, 0.5]]
    """
    return probabilities / probabilities.sum(axis=-1, keepdims=True)


def moe(
    params: Params,
    x: Float[Array, "*batch in"],
    *,
    top_k: int = 2,
    activation: Callable[[Any], Any] = silu,
    gates: Callable[[Any], Any] | None = None,
) -> tuple[Float[Array, "*batch out"], dict[str, Array]]:
    """The weighted sum of the `top_k` experts with the largest router probabilities.

        p = softmax(router(x)),    y = sum over the k largest p_e of gates(p)_e expert_e(x)
        expert(x) = down(activation(gate(x)) * up(x)), or down(activation(up(x))) without a gate

    Args:
      x: (..., in_features); each vector is a token.
      top_k: k, from 1 to E.
      activation: of the experts.
      gates: weights from the top-k probabilities (tokens, k), the largest first. None for the
        identity (Switch); `normalize_gates` makes them sum to 1 (Mixtral).

    Returns: y (..., out_features) in the dtype of x, and auxiliary values, in at least float32:
      'load_balance', the loss E sum_e f_e P_e with the fraction f_e of the routes and the mean
        probability P_e of each expert: 1 for a uniform load, up to E; a usual weight is 0.01.
      'router_z', the loss mean (log sum_e exp l_e)^2 of the router's logits, which keeps them
        small; a usual weight is 0.001.
      'load', f (E,), to monitor; it has no gradient.
    Raises: ValueError if the last axis of x or top_k does not fit the parameters.
    Source: Fedus, Zoph & Shazeer 2022, arXiv:2101.03961, equations 1, 2 and 4 to 6; Zoph et al.
      2022, arXiv:2202.08906, equation 5 (router_z); Jiang et al. 2024, arXiv:2401.04088. Deviates:
      for k > 1, f counts all k routes of a token; no capacity, so no token is dropped (as in Gale
      et al. 2022, arXiv:2211.15841); the two losses come without their coefficients.

    >>> params = moe_init(jax.random.key(0), 3, 8, num_experts=4)
    >>> y, aux = moe(params, jnp.ones((2, 5, 3)))
    >>> y.shape, sorted(aux), sorted(aux['load'].tolist())
    ((2, 5, 3), ['load', 'load_balance', 'router_z'], [0.0, 0.0, 0.5, 0.5])
    """
    expect_floats("moe", x)
    _expect_routes(params, top_k)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # (N, in)
    wide = rows.astype(at_least_float32(rows))
    router = jax.tree.map(lambda kernel: kernel.astype(wide.dtype), params["router"])
    logits = linear(router, wide)  # (N, E)
    probabilities = softmax(logits)
    chosen, expert = lax.top_k(probabilities, top_k)  # (N, k)
    y = _run_experts(params["experts"], rows, expert, activation)  # (N, k, out)
    weights = chosen if gates is None else gates(chosen)
    y = (weights[:, :, None] * y.astype(weights.dtype)).sum(axis=1).astype(y.dtype)
    return y.reshape(*x.shape[:-1], y.shape[-1]), _auxiliary(logits, probabilities, expert)


def _expect_routes(params: Params, top_k: int) -> None:
    num_experts = params["router"]["kernel"].shape[1]
    if not 1 <= top_k <= num_experts:
        raise ValueError(
            f"moe: expected top_k from 1 to {num_experts}, the number of experts, got {top_k}; "
            "route each token to fewer, or make more experts"
        )


def _auxiliary(logits: Array, probabilities: Array, expert: Array) -> dict[str, Array]:
    num_experts = logits.shape[1]
    tokens = jnp.maximum(jnp.asarray(logits.shape[0], logits.dtype), 1)
    routes = tokens * expert.shape[1]
    load = _counts(expert.ravel(), num_experts).astype(logits.dtype) / routes
    return {
        "load_balance": num_experts * (load * probabilities.sum(axis=0) / tokens).sum(),
        "router_z": jnp.square(jax.nn.logsumexp(logits, axis=1)).sum() / tokens,
        "load": load,
    }


def _counts(expert: Array, num_experts: int) -> Array:
    return jnp.zeros(num_experts, jnp.int32).at[expert].add(1)


def _run_experts(
    params: Params, rows: Array, expert: Array, activation: Callable[[Any], Any]
) -> Array:
    """The outputs of each token (N, in) for each of its experts (N, k): (N, k, out)."""
    num_experts = params["up"]["kernel"].shape[0]
    slot, block_expert, block_size = _plan(expert.ravel(), num_experts)
    # Gathered by the token of each slot; padding reads past the end, which gives zeros.
    token = jnp.arange(expert.size, dtype=jnp.int32) // expert.shape[1]
    token = jnp.full(block_expert.size * block_size, rows.shape[0], jnp.int32).at[slot].set(token)
    # In at least float32, in which the gradients of a token's experts are then added.
    x = rows.astype(at_least_float32(rows)).at[token].get(mode="fill", fill_value=0)
    x = x.astype(rows.dtype).reshape(block_expert.size, block_size, rows.shape[1])

    def project(name: str, x: Array) -> Array:
        return _blockwise(x, params[name]["kernel"], block_expert)

    if "gate" in params:
        hidden = activation(project("gate", x)) * project("up", x)
    else:
        hidden = activation(project("up", x))
    y = project("down", hidden)
    y = lax.collapse(y, 0, 2).at[slot].get(mode="promise_in_bounds", unique_indices=True)
    return y.reshape(*expert.shape, y.shape[-1])


def _plan(expert: Array, num_experts: int) -> tuple[Array, Array, int]:
    """The slot of each row among the blocks, the expert of each block, and the block size."""
    size = _block_size(expert.size, num_experts)
    most = (expert.size + num_experts * (size - 1)) // size  # blocks, for the worst split
    blocks = jnp.arange(most, dtype=jnp.int32)
    counts = _counts(expert, num_experts)
    of_expert = (counts + size - 1) // size
    ends = jnp.cumsum(of_expert, dtype=jnp.int32)
    block_expert = (ends[None, :] <= blocks[:, None]).sum(axis=1, dtype=jnp.int32)

    order = jnp.argsort(expert)  # stable
    sorted_start = jnp.cumsum(counts, dtype=jnp.int32) - counts
    rank = jnp.arange(expert.size, dtype=jnp.int32) - sorted_start[expert[order]]
    rank = jnp.zeros_like(rank).at[order].set(rank)  # of each row among those of its expert
    slot = (ends - of_expert)[expert] * size + rank
    return slot, jnp.minimum(block_expert, num_experts - 1), size


def _block_size(rows: Dim, num_experts: int) -> int:
    if is_symbolic(rows):
        return _DEFAULT_BLOCK
    return max(1, -(-rows // (4 * num_experts)))


@jax.custom_jvp
def _blockwise(x: Array, kernels: Array, expert: Array) -> Array:
    """x[b] @ kernels[expert[b]] for each block b: (blocks, size, in) to (blocks, size, out)."""
    return lax.map(lambda block: block[0] @ _kernel(kernels, block[1]), (x, expert))


def _kernel(kernels: Array, expert: Array) -> Array:
    return lax.dynamic_index_in_dim(kernels, expert, keepdims=False)


@_blockwise.defjvp
def _blockwise_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    dy = linear_call(_blockwise_tangents, _blockwise_cotangents, primals, tangents[:2])
    return _blockwise(*primals), dy


def _blockwise_tangents(saved: Any, tangents: tuple[Array, Array]) -> Array:
    x, kernels, expert = saved
    dx, dkernels = tangents
    return _blockwise(dx, kernels, expert) + _blockwise(x, dkernels, expert)


def _blockwise_cotangents(saved: Any, g: Array) -> tuple[Array, Array]:
    # By hand: the derived loop would add a gradient of all kernels in every block.
    x, kernels, expert = saved

    def block(total: Array, own: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        x, g, expert = own
        total = total.at[expert].add((x.T @ g).astype(total.dtype))
        return total, g @ _kernel(kernels, expert).T

    zeros = varying_like(jnp.zeros(kernels.shape, at_least_float32(kernels)), g)
    total, dx = lax.scan(block, zeros, (x, g, expert))
    return dx, total.astype(kernels.dtype)
