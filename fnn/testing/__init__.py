"""Laws: property tests for your own functions, models, optimizers, losses, schedules and metrics.

A law is a function that raises AssertionError with the leaf, both values and a hint. In a test,
call `check_model`, `check_optimizer`, ... for all laws of a kind:

    def test_the_laws_hold_for_my_model():
        check_model(my_model, x, noisy=True)
"""

from fnn.testing.gradients import (
    gradients_match_finite_differences as gradients_match_finite_differences,
)
from fnn.testing.guards import (
    costs_at_most,
    explain_retrace,
    keys_used_once,
    no_leaks,
    no_recompiles,
    no_transfers,
)
from fnn.testing.initializer_laws import check_initializer
from fnn.testing.laws import (
    donation_is_safe,
    is_elementwise,
    is_pure,
    jit_equals_eager,
    keeps_structure_and_dtype,
    scan_equals_unrolled,
    traces_once,
    vmap_equals_loop,
)
from fnn.testing.loss_laws import check_loss
from fnn.testing.metric_laws import check_metric
from fnn.testing.model_laws import check_model
from fnn.testing.optimizer_laws import check_optimizer, check_transform
from fnn.testing.recipe_laws import (
    accumulation_equals_whole_batch as accumulation_equals_whole_batch,
)
from fnn.testing.recipe_laws import devices_equal_whole_batch, padding_changes_nothing
from fnn.testing.recipe_laws import (
    evaluation_does_not_depend_on_the_batch_size as evaluation_does_not_depend_on_the_batch_size,
)
from fnn.testing.schedule_laws import check_schedule
from fnn.testing.transform_laws import supports_all_transforms

# fmt: off
__all__ = [
    "accumulation_equals_whole_batch", "check_initializer", "check_loss", "check_metric",
    "check_model", "check_optimizer", "check_schedule", "check_transform", "costs_at_most",
    "devices_equal_whole_batch", "donation_is_safe", "evaluation_does_not_depend_on_the_batch_size",
    "explain_retrace", "gradients_match_finite_differences", "is_elementwise", "is_pure",
    "jit_equals_eager", "keeps_structure_and_dtype", "keys_used_once", "no_leaks", "no_recompiles",
    "no_transfers", "padding_changes_nothing", "scan_equals_unrolled", "supports_all_transforms",
    "traces_once", "vmap_equals_loop",
]
# fmt: on
