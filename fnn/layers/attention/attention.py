"""Attention: one function, computed by the fastest implementation that the platform has."""

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from fnn.autodiff import LinearFunction, linear_call, varying_like, with_derivative_of
from fnn.dtypes import at_least_float32, indices
from fnn.expect import did_you_mean, within
from fnn.layers.attention import blockwise, kernels
from fnn.layers.attention.blockwise import Masks, TileRule
from fnn.layers.attention.dense import dot_product_attention, expect_fitting
from fnn.layers.attention.masks import AttentionMask, Mask, as_rule, expect_rule
from fnn.types import Scalar
from fnn.xla import Dim, is_plain, is_symbolic, on_one_device

Implementation = Literal["auto", "dense", "blockwise", "cudnn", "splash"]

Kernel = Callable[..., Array]  # kernel(rule, query, key, value, masks) -> heads

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """How an attention is computed: by tiles, and by which kernels on the platforms with some."""

    rule: TileRule
    cudnn: bool
    splash: bool


@within(softcap="(0, inf)")
def attention(
    query: Float[Array, "batch queries heads features"],
    key: Float[Array, "..."],
    value: Float[Array, "..."],
    *,
    mask: Mask = None,
    bias: Float[Array, "..."] | None = None,
    scale: Scalar | None = None,
    softcap: Scalar | None = None,
    drop: Callable[[Any], Any] | None = None,
    implementation: Implementation = "auto",
    block_size: int = 256,
) -> Float[Array, "batch queries heads value_features"]:
    """`dot_product_attention`, in memory linear in the length where possible.

    Args:
      query, key, value, bias, scale, softcap, drop: as in `dot_product_attention`.
      mask: an `AttentionMask`, or an array of booleans. With a rule, such as
        `AttentionMask(causal=True)`, no mask is in memory and excluded tiles are skipped.
      implementation: 'auto' is cuDNN's flash attention on NVIDIA GPUs, splash attention on TPUs
        and 'blockwise' elsewhere, each where it computes the same; 'dense' for short sequences,
        a bias, dropout of the weights or a traced softcap, which need all logits. The choice is
        made as the program is lowered, also for another platform than this machine's, and logged
        by the logger 'fnn.layers.attention.attention' at level INFO, with the reason why not a
        faster one. 'dense' keeps all logits in memory, 'blockwise' those of a tile; 'cudnn' and
        'splash' are the kernels alone, without forward mode.
      block_size: number of queries, and of keys, of a tile of 'blockwise'.

    Returns: (B, T, H, features of the values), in the dtype of the query. Sums and statistics are
      in at least float32. A query without keys gives 0.
    Raises: ValueError if shapes do not fit, for an implementation that does not compute this
      attention, and for a softcap of 0 or less that is known while tracing.
    Source: Dao 2023, arXiv:2307.08691.

    >>> q = jnp.ones((1, 1024, 2, 4))
    >>> attention(q, q, q, mask=AttentionMask(causal=True, window=(127, 0))).shape
    (1, 1024, 2, 4)
    """
    if implementation not in get_args(Implementation):
        known = ", ".join(map(repr, get_args(Implementation)))
        advice = did_you_mean(implementation, get_args(Implementation), "choose 'auto'")
        raise ValueError(
            f"attention: expected implementation to be one of {known}, got {implementation!r}; "
            f"{advice}"
        )
    rule = as_rule(mask)
    expect_fitting("attention", query, key, value, rule.mask, bias)
    expect_rule("attention", rule, query.shape[0], query.shape[1], key.shape[1])
    why_dense = _why_dense(query, key, bias, softcap, drop)
    if implementation == "dense" or (implementation == "auto" and why_dense):
        _say(query, "dense", why_dense)
        return dot_product_attention(
            query, key, value, mask=mask, bias=bias, scale=scale, softcap=softcap, drop=drop
        )
    if why_dense not in ("", SHORT, PLAIN):
        raise ValueError(
            f"attention: expected implementation 'dense' or 'auto' for {why_dense}, got "
            f"{implementation!r}; all the logits are needed in memory"
        )
    if scale is not None and not isinstance(scale, int | float):
        query, scale = query * jnp.asarray(scale, query.dtype), 1.0
    given = TileRule(
        causal=rule.causal,
        window=rule.window,
        scale=1 / math.sqrt(query.shape[-1]) if scale is None else float(scale),
        softcap=None if softcap is None else float(softcap),
        block_size=block_size,
    )
    return _by_tiles(given, query, key, value, _masks(rule, query, key), implementation)


def _by_tiles(
    rule: TileRule,
    query: Array,
    key: Array,
    value: Array,
    masks: Masks,
    implementation: Implementation,
) -> Array:
    inputs = (rule, query, key, value, masks)
    refusals = {
        "cudnn": kernels.why_not_cudnn(*inputs),
        "splash": kernels.why_not_splash(*inputs),
    }
    if implementation in refusals:
        if refusals[implementation]:
            raise ValueError(
                f"attention: expected an attention that the kernel {implementation!r} computes, "
                f"which {refusals[implementation]}, got {query.dtype} heads {query.shape} and "
                f"{key.shape}; use 'auto'"
            )
        return {"cudnn": kernels.cudnn, "splash": kernels.splash}[implementation](*inputs)
    chosen = {name: implementation == "auto" and not why for name, why in refusals.items()}
    _say_kernel(query, chosen, refusals)
    return _attend(Plan(rule, **chosen), query, key, value, masks)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attend(plan: Plan, query: Array, key: Array, value: Array, masks: Masks) -> Array:
    return _forward(plan, query, key, value, masks)[0]


@_attend.defjvp
def _attend_jvp(plan: Plan, primals: Any, tangents: Any) -> tuple[Array, Array]:
    y, log_sum = (checkpoint_name(part, "attention") for part in _forward(plan, *primals))
    residuals = (*primals, y, log_sum)
    return y, linear_call(*_derivative(plan), residuals, tangents[:3])


@functools.cache  # JAX caches compiled programs by the identity of these functions
def _derivative(plan: Plan) -> tuple[LinearFunction, LinearFunction]:
    return functools.partial(_tangents, plan), functools.partial(_cotangents, plan)


def _forward(plan: Plan, *inputs: Any) -> tuple[Array, Array]:
    """The heads, and the logs of the sums that the derivative of the tiles reads."""
    tiles = functools.partial(blockwise.forward, plan.rule)

    def by(kernel: Kernel, query: Array, *rest: Any) -> tuple[Array, Array]:
        batch, queries, heads, _ = query.shape
        unused = jnp.zeros((batch, heads, queries), at_least_float32(query))
        return kernel(plan.rule, query, *rest), varying_like(unused, query)

    return _on_platform(plan, by, tiles, tiles, *inputs)


def _tangents(plan: Plan, saved: Any, directions: Any) -> Array:
    def recomputed(saved: Any, directions: Any) -> Array:
        return blockwise.tangents(plan.rule, _with_sums(plan, saved), directions)

    def by(kernel: Kernel, saved: Any, directions: Any) -> Array:
        return recomputed(saved, directions)

    tiles = functools.partial(blockwise.tangents, plan.rule)
    return _on_platform(plan, by, recomputed, tiles, saved, directions)


def _cotangents(plan: Plan, saved: Any, cotangent: Array) -> tuple[Array, Array, Array]:
    def by(kernel: Kernel, saved: Any, cotangent: Array) -> Any:
        *heads, masks = saved[:4]
        back = jax.vjp(lambda *heads: kernel(plan.rule, *heads, masks), *heads)[1]
        return back(cotangent)

    def recomputed(saved: Any, cotangent: Array) -> tuple[Array, Array, Array]:
        return blockwise.cotangents(plan.rule, _with_sums(plan, saved), cotangent)

    tiles = functools.partial(blockwise.cotangents, plan.rule)
    return _on_platform(plan, by, recomputed, tiles, saved, cotangent)


def _with_sums(plan: Plan, saved: Any) -> Any:
    """What the tiles save; a kernel saves no logs of sums."""
    return (*saved[:4], *blockwise.forward(plan.rule, *saved[:4]))


def _on_platform(
    plan: Plan,
    by: Callable[..., Any],
    recomputed: Callable[..., Any],
    tiles: Callable[..., Any],
    *args: Any,
) -> Any:
    """`tiles(*args)`, or `by(kernel, *args)` on a platform with a kernel.

    Kernels have no second derivatives and no forward mode: there, `recomputed` is differentiated.
    """
    chosen: dict[str, Callable[..., Any]] = {}
    if plan.cudnn:
        chosen["cuda"] = functools.partial(by, kernels.cudnn)
    if plan.splash:
        splash = functools.partial(by, kernels.splash)
        # Pallas' kernels cannot be partitioned by XLA over the devices of one program.
        chosen["tpu"] = functools.partial(on_one_device, splash, recomputed)
    chosen = {name: with_derivative_of(kernel, recomputed) for name, kernel in chosen.items()}
    return lax.platform_dependent(*args, **chosen, default=tiles) if chosen else tiles(*args)


def _masks(rule: AttentionMask, query: Array, key: Array) -> Masks:
    batch, queries, keys = query.shape[0], query.shape[1], key.shape[1]
    own, theirs, dense = rule.segments, rule.memory_segments, rule.mask
    if own is not None:
        own = indices(own)
        theirs = own if theirs is None else indices(theirs)
    if dense is not None and dense.shape[1] == dense.shape[2] == 1:  # a mask of keys alone
        if own is None or theirs is None:
            own, theirs = (jnp.zeros((batch, n), jnp.int32) for n in (queries, keys))
        theirs = jnp.where(dense[:, 0, 0], theirs, kernels.NO_SEGMENT)
        dense = None
    return Masks(own, theirs, None if rule.lengths is None else indices(rule.lengths), dense)


SHORT, PLAIN = "short sequences", "xla.plain()"


def _why_dense(
    query: Array, key: Array, bias: Any, softcap: Any, drop: Callable[[Any], Any] | None
) -> str:
    lengths = (query.shape[1], key.shape[1])
    if any(map(is_symbolic, lengths)):
        return "lengths that are symbolic"
    reasons = {
        "a bias": bias is not None,
        "dropout of the weights": drop is not None,
        "a traced softcap": softcap is not None and not isinstance(softcap, int | float),
        "an empty sequence": min(lengths) == 0,
        PLAIN: is_plain(),
        SHORT: lengths[0] * lengths[1] <= 128 * 128,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _say(query: Array, taken: str, why: str) -> None:
    if why:
        _say_once(query.shape, str(query.dtype), f"{taken}, for {why}")


def _say_kernel(query: Array, chosen: dict[str, bool], refusals: dict[str, str]) -> None:
    kernel = {"gpu": "cudnn", "tpu": "splash"}.get(jax.default_backend())
    if kernel is None or (not chosen[kernel] and not refusals[kernel]):
        _say_once(query.shape, str(query.dtype), "blockwise")
    elif chosen[kernel]:
        _say_once(query.shape, str(query.dtype), kernel)
    else:
        why = f"blockwise, not {kernel}, which {refusals[kernel]}"
        _say_once(query.shape, str(query.dtype), why)


@functools.cache
def _say_once(shape: tuple[Dim, ...], dtype: str, choice: str) -> None:
    log.info("attention of %s queries %s: %s", dtype, shape, choice)
