"""Laws: property tests for models, losses, optimizers, steps and recipes of any library.

A law is a statement that every function of a kind must keep, such as "no key is used twice" or
"decoding equals the whole". There is one check for each kind of function:

    def test_my_model():
        check_model(my_model, x, causal=True)

    @laws_of.model(my_model, x, causal=True)        # one pytest item for each law
    def test_each_law_of_my_model(law):
        law()

A check runs all laws and raises `BrokenLaws`, with a `LawError` for each that is broken.
"""

import importlib
from typing import Any

from fnn.testing import laws_of
from fnn.testing.battery import BrokenLaws, LawError
from fnn.testing.data_laws import check_augment, check_loader, check_order, check_split
from fnn.testing.decoder_laws import check_decoder
from fnn.testing.draws import no_key_is_used_twice
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
from fnn.testing.recipe_laws import check_recipe, devices_equal_whole_batch, padding_changes_nothing
from fnn.testing.recipe_laws import (
    evaluation_does_not_depend_on_the_batch_size as evaluation_does_not_depend_on_the_batch_size,
)
from fnn.testing.run_laws import check_evaluate, check_run
from fnn.testing.schedule_laws import check_schedule
from fnn.testing.step_laws import check_step
from fnn.testing.transform_laws import supports_all_transforms

# fmt: off
__all__ = [
    "BrokenLaws", "LawError", "accumulation_equals_whole_batch", "check_augment", "check_decoder",
    "check_evaluate", "check_initializer", "check_loader", "check_loss", "check_metric",
    "check_model", "check_optimizer", "check_order", "check_recipe", "check_run", "check_schedule",
    "check_split", "check_step", "check_transform", "costs_at_most", "devices_equal_whole_batch",
    "donation_is_safe", "evaluation_does_not_depend_on_the_batch_size", "explain_retrace",
    "gradients_match_finite_differences", "is_elementwise", "is_pure", "jit_equals_eager",
    "keeps_structure_and_dtype", "keys_used_once", "laws_of", "no_key_is_used_twice", "no_leaks",
    "no_recompiles", "no_transfers", "padding_changes_nothing", "scan_equals_unrolled",
    "supports_all_transforms", "traces_once", "vmap_equals_loop",
]
# fmt: on


def __getattr__(name: str) -> Any:
    """`strategies` needs hypothesis, and is imported where it is used."""
    if name == "strategies":
        return importlib.import_module("fnn.testing.strategies")
    raise AttributeError(f"module 'fnn.testing' has no attribute {name!r}")
