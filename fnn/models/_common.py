"""Parts that several architectures share: input checks and small constructors."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from fnn import layers, nn
from fnn.initializers import Initializer
from fnn.layers._axes import expect_images
from fnn.layers.embedding import expect_ids
from fnn.layers.linear import plus_row
from fnn.types import Model, ModelState, Params, PRNGKey


def stochastic(
    init: Callable[[PRNGKey, Any], Params],
    forward: Callable[[Params, Any, PRNGKey | None, bool], Any],
) -> Model:
    """The model of `init(key, x) -> params` and `forward(params, x, key, train)`, without state."""

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        return forward(params, x, key, train), model_state

    return Model(init=lambda key, x: (init(key, x), ()), apply=apply)


def with_check(model: Model, check: Callable[[Any], None]) -> Model:
    """`model`, with `check(x)` before init and apply."""

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        check(x)
        return model.init(key, x)

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        check(x)
        return model.apply(params, model_state, x, key=key, train=train)

    return Model(init=init, apply=apply)


def patch_embedding(features: int, patch_size: int, kernel_init: Initializer) -> Model:
    """A linear layer on patches: (B, H, W, C) to (B, H / patch_size, W / patch_size, features)."""
    size = (patch_size, patch_size)
    return nn.conv(features, size, stride=patch_size, kernel_init=kernel_init)


def add_positions(params: Params, x: Array, start: Any = 0) -> Array:
    """x (B, T, E) plus the learned positions start, ..., start + T - 1."""
    return plus_row(x, layers.learned_positions(params, x.shape[1], start=start))


def expect_features(where: str, x: Any) -> None:
    """Raise for x of another shape than (batch, features)."""
    if len(x.shape) != 2:
        raise ValueError(
            f"{where}: expected x of shape (batch, features), got {x.shape}; "
            "put nn.flatten() in front"
        )


def expect_tokens(
    where: str, tokens: Any, max_length: int | None = None, name: str = "tokens"
) -> None:
    """Raise for tokens that are not integers (batch, time), or too long."""
    expect_ids(where, tokens)
    if len(tokens.shape) != 2:
        raise ValueError(
            f"{where}: expected {name} of shape (batch, time), got {tuple(tokens.shape)}; "
            "add the missing axis"
        )
    expect_length(where, tokens.shape[1], max_length, name)


def expect_length(where: str, length: int, max_length: int | None, name: str = "tokens") -> None:
    """Raise for more time steps than `max_length`; None for no limit."""
    if max_length is not None and length > max_length:
        raise ValueError(
            f"{where}: expected {name} of at most max_length = {max_length} steps, got {length}; "
            "truncate, or build the model with a larger max_length"
        )


def expect_divisible(where: str, x: Any, factor: int, remedy: str) -> None:
    """Raise for images whose height or width is no multiple of `factor`."""
    expect_images(where, x)
    if any(size % factor for size in x.shape[1:3]):
        raise ValueError(
            f"{where}: expected a height and width that {factor} divides, got "
            f"{tuple(x.shape[1:3])}; pad or resize the images, or {remedy}"
        )


def expect_stages(where: str, depths: tuple[int, ...], widths: tuple[int, ...]) -> None:
    """Raise for stages without blocks, or without a width each."""
    if not depths or min(depths) < 1 or len(depths) != len(widths):
        raise ValueError(
            f"{where}: expected the depth and the width of each stage, got depths {depths} and "
            f"widths {widths}; give as many of both, each above 0"
        )
