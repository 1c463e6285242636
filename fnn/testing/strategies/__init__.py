"""Strategies of hypothesis for JAX code, and machines that test optimizers and steps.

    from hypothesis import given
    from fnn.testing import strategies as st

    @given(st.batches(x=(6, 5), y=st.labels(6, 3)), st.keys())
    def test_step(batch, key): ...

Values are NumPy arrays or typed keys. They are finite float32 of moderate size unless asked
otherwise, edge values are likely, and what fails shrinks to zeros, small integers and eighths.

A strategy of this module also has one ordinary example for a seed, which the laws take where they
expect an array: `strategy.typical(seed)`, or `example_of(strategy)`. Strategies that hypothesis
makes of it, as `.map` does, have none; `with_typical` gives them one.

This is the only part of fnn that imports hypothesis, so `fnn.testing` imports it when it is used.
"""

from fnn.testing.strategies.machines import optimizer_machine, training_machine
from fnn.testing.strategies.values import (
    POOL,
    arrays,
    batches,
    example_of,
    gradients,
    hyper,
    images,
    keys,
    labels,
    lengths,
    logits,
    masks,
    params,
    probabilities,
    register_profile,
    sequences,
    shapes,
    steps,
    tables,
    tokens,
    trees,
    with_typical,
)

# fmt: off
__all__ = [
    "POOL", "arrays", "batches", "example_of", "gradients", "hyper", "images", "keys", "labels",
    "lengths", "logits", "masks", "optimizer_machine", "params", "probabilities",
    "register_profile", "sequences", "shapes", "steps", "tables", "tokens", "training_machine",
    "trees", "with_typical",
]
# fmt: on
