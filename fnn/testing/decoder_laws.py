"""Laws of decoders: token by token they give the logits of the whole sequence."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.testing import tolerance
from fnn.testing._compare import expect_same, expect_same_specs
from fnn.testing._given import dtypes_beyond_float32, given
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.laws import arguments_are_kept, is_traced_alike
from fnn.testing.model_declarations import decode_as_the_whole
from fnn.types import Decoder, Model, Params

Whole = Callable[[Params, Any], Any]


def check_decoder(
    decoder: Decoder, model: Model | Whole, params: Params, tokens: Any, **options: Any
) -> None:
    """Runs all laws of a decoder; the arguments are those of `decoder_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> def step(table, tokens, total):
    ...     sums = total[:, None] + jnp.cumsum(table[tokens], axis=1)
    ...     return sums, sums[:, -1]
    >>> decoder = Decoder(lambda table, batch, length: jnp.zeros((batch, 5)), step)
    >>> check_decoder(decoder, lambda table, tokens: jnp.cumsum(table[tokens], axis=1),
    ...               jnp.eye(5), jnp.array([[0, 1, 2, 3], [3, 2, 4, 0], [1, 4, 0, 2]]))
    """
    check("check_decoder", decoder_laws(decoder, model, params, tokens, **options))


def decoder_laws(
    decoder: Decoder,
    model: Model | Whole,
    params: Params,
    tokens: Any,
    *,
    like: Decoder | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a decoder.

    Args:
      decoder: `init(params, batch, length) -> carry` and `step(params, tokens, carry) -> logits,
        carry`.
      model: a Model without state, or `model(params, tokens) -> logits`.
      params: of both.
      tokens: (batch, time), at least (3, 4).
      like: a reference decoder.
      dtypes, policy: accepted for the sake of all checks.
      skip: name of a law -> the reason why it does not apply.

    >>> decoder = Decoder(lambda params, batch, length: (), lambda params, tokens, _: (tokens, ()))
    >>> decoder_laws(decoder, lambda params, tokens: tokens, (), jnp.zeros((3, 4), jnp.int32))[0]
    decoding_is_pure
    """
    where = "check_decoder"
    if not (callable(getattr(decoder, "init", None)) and callable(getattr(decoder, "step", None))):
        raise ValueError(f"{where}: expected a Decoder with init and step, got {decoder!r}")
    dtypes_beyond_float32(where, dtypes)
    tokens = jnp.asarray(given(where, tokens))
    if tokens.ndim != 2 or tokens.shape[0] < 3 or tokens.shape[1] < 4:
        raise ValueError(
            f"{where}: expected tokens of shape (3 or more, 4 or more), got {tokens.shape}"
        )
    whole = _whole(model)
    laws = Battery(where, skip)
    laws.add(decoding_is_pure, decoder, params, tokens)
    laws.add(decoding_keeps_the_carry, decoder, params, tokens)
    laws.add(decoding_equals_the_whole, decoder, params, tokens, whole)
    laws.add(rows_are_independent, decoder, params, tokens)
    laws.add(room_does_not_matter, decoder, params, tokens)
    laws.add(the_past_is_kept, decoder, params, tokens)
    if like is not None:
        laws.add(decodes_as_the_reference, decoder, params, tokens, like)
    return laws.done()


def _whole(model: Any) -> Whole:
    if callable(getattr(model, "apply", None)):
        return jax.jit(lambda params, tokens: model.apply(params, (), tokens, train=False)[0])
    return jax.jit(model)


def _decoded(decoder: Decoder, params: Params, tokens: Any, room: int | None = None) -> Any:
    """The logits, one token at a time, in a scan."""
    batch, time = tokens.shape
    carry = decoder.init(params, batch, room or time)

    def step(carry: Any, column: Any) -> tuple[Any, Any]:
        logits, carry = decoder.step(params, column[:, None], carry)
        return carry, logits[:, 0]

    _, logits = jax.jit(lambda carry, columns: jax.lax.scan(step, carry, columns))(carry, tokens.T)
    return jnp.moveaxis(logits, 0, 1)


def decoding_is_pure(decoder: Decoder, params: Params, tokens: Any) -> None:
    """A step changes no argument, and two traces are the same program."""
    carry = decoder.init(params, *tokens.shape)
    arguments_are_kept(decoder.step, params, tokens[:, :1], carry)
    is_traced_alike(decoder.step, params, tokens[:, :1], carry)


def decoding_keeps_the_carry(decoder: Decoder, params: Params, tokens: Any) -> None:
    """The carry keeps its structure, shapes and dtypes, as a scan requires."""
    carry = decoder.init(params, *tokens.shape)
    new = jax.eval_shape(decoder.step, params, tokens[:, :1], carry)[1]
    expect_same_specs(
        "decoding_keeps_the_carry",
        carry,
        new,
        names=("the carry", "the new one"),
        hint="write into a cache of fixed size, by dynamic_update_slice",
    )


def decoding_equals_the_whole(decoder: Decoder, params: Params, tokens: Any, whole: Whole) -> None:
    """The logits token by token, and in two blocks, are those of the whole sequence."""
    decode_as_the_whole(decoder, params, tokens, whole)


def rows_are_independent(decoder: Decoder, params: Params, tokens: Any) -> None:
    """The logits of a sequence do not depend on the others of the batch."""
    base = _decoded(decoder, params, tokens)
    other = _decoded(decoder, params, tokens.at[0].set(tokens[1]))
    expect_same(
        "rows_are_independent",
        np.asarray(base)[1:],
        np.asarray(other)[1:],
        names=("before", "with another first sequence"),
        rtol=1e-5,
        hint="keep a cache for each row",
    )


def room_does_not_matter(decoder: Decoder, params: Params, tokens: Any) -> None:
    """A longer cache gives the same logits."""
    base = _decoded(decoder, params, tokens)
    allowed = tolerance.of(lambda p: _decoded(decoder, p, tokens), params)
    expect_same(
        "room_does_not_matter",
        base,
        _decoded(decoder, params, tokens, tokens.shape[1] + 5),
        names=("in a cache of its length", "in a longer one"),
        allowed=allowed,
        hint="mask what is not yet filled",
    )


def the_past_is_kept(decoder: Decoder, params: Params, tokens: Any) -> None:
    """The last logits change with the first token, or with any before the last."""
    base = _decoded(decoder, params, tokens)[:, -1]
    moved = jnp.roll(tokens[:, :-1], 1, axis=0)
    other = _decoded(decoder, params, jnp.concatenate([moved, tokens[:, -1:]], axis=1))[:, -1]
    if np.array_equal(base, other) and not np.array_equal(moved, tokens[:, :-1]):
        raise LawError(
            "the_past_is_kept: the last logits are the same after other tokens; "
            "return the new carry"
        )


def decodes_as_the_reference(decoder: Decoder, params: Params, tokens: Any, like: Decoder) -> None:
    """The logits are those of the reference."""
    expect_same(
        "decodes_as_the_reference",
        _decoded(like, params, tokens),
        _decoded(decoder, params, tokens),
        names=("the reference", "the decoder"),
        rtol=1e-4,
        hint="compare positions, masks and the order of the cache",
    )
