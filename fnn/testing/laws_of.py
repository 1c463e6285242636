"""One pytest item per law: decorators for tests with an argument `law`.

    @laws_of.model(my_model, x, causal=True)
    def test_my_model(law):
        law()

Each has the arguments of the check of its kind. A law in `skip` is a skipped item with its reason.
"""

from collections.abc import Callable, Sequence
from typing import Any

from fnn.testing import (
    data_laws,
    decoder_laws,
    initializer_laws,
    loss_laws,
    metric_laws,
    model_laws,
    optimizer_laws,
    recipe_laws,
    run_laws,
    schedule_laws,
    step_laws,
)
from fnn.testing.battery import Law

# fmt: off
__all__ = [
    "augment", "decoder", "evaluate", "initializer", "loader", "loss", "metric", "model",
    "optimizer", "order", "recipe", "run", "schedule", "split", "step", "transform",
]
# fmt: on


def _decorator(laws: Sequence[Law]) -> Any:
    """`pytest.mark.parametrize` over the laws."""
    import pytest

    params = [
        pytest.param(
            law,
            id=law.name,
            marks=[pytest.mark.laws, *[pytest.mark.skip(reason=law.skipped)] * bool(law.skipped)],
        )
        for law in laws
    ]
    return pytest.mark.parametrize("law", params)


def _over(make: Callable[..., list[Law]]) -> Callable[..., Any]:
    kind = make.__name__.removesuffix("_laws")

    def decorate(*args: Any, **options: Any) -> Any:
        return _decorator(make(*args, **options))

    decorate.__name__ = decorate.__qualname__ = kind
    decorate.__doc__ = f"Parametrizes a test over `{make.__name__}`; the same arguments."
    decorate.__module__ = __name__
    decorate.__wrapped__ = make  # type: ignore[attr-defined]
    return decorate


augment = _over(data_laws.augment_laws)
decoder = _over(decoder_laws.decoder_laws)
evaluate = _over(run_laws.evaluate_laws)
initializer = _over(initializer_laws.initializer_laws)
loader = _over(data_laws.loader_laws)
loss = _over(loss_laws.loss_laws)
metric = _over(metric_laws.metric_laws)
model = _over(model_laws.model_laws)
optimizer = _over(optimizer_laws.optimizer_laws)
order = _over(data_laws.order_laws)
recipe = _over(recipe_laws.recipe_laws)
run = _over(run_laws.run_laws)
schedule = _over(schedule_laws.schedule_laws)
split = _over(data_laws.split_laws)
step = _over(step_laws.step_laws)
transform = _over(optimizer_laws.transform_laws)
