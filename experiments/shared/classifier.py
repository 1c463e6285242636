"""The end of an experiment with images: the test of the classifier, and its report."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.shared.options import RunOptions
from fnn import activations, report, tree
from fnn.checkpoint import RunDir
from fnn.recipe import RecipeFunction
from fnn.train import FitResult, predict
from fnn.types import Batch, Hyper, TrainState


def mirrored(
    recipe: RecipeFunction, state: TrainState, x: Array | np.ndarray, hyper: Hyper
) -> Float[np.ndarray, "n classes"]:
    """The probability of each class: the mean over the image and its mirror image."""
    views = (predict(recipe, state, view, hyper=hyper) for view in (x, x[:, :, ::-1]))
    return np.asarray(sum(activations.softmax(jnp.asarray(logits)) for logits in views) / 2)


def report_test(
    config: RunOptions,
    run: RunDir,
    result: FitResult,
    test: Batch,
    probabilities: Array | np.ndarray,
    *,
    title: str,
    start: float,
    class_names: Sequence[str] | None = None,
) -> float:
    """Prints the accuracy on the test part, and writes curves.png and report.html.

    Args:
      probabilities: of each class, for each image of the test part.
      title: of the report.
      start: of the training, by `time.monotonic()`.

    Returns: the fraction of the test part that is classified correctly.
    """
    made, kept = len(result.history.train["loss"]), int(result.state.step)
    print(f"stopped at step {made} ({result.stop.value}), with the weights of step {kept}")
    images, labels, probabilities = map(np.asarray, (test.x, test.y, probabilities))
    wrong, total = int((probabilities.argmax(axis=1) != labels).sum()), len(labels)
    seconds = time.monotonic() - start
    page = report.classification(
        run.path,
        title=f"{title}, seed {config.seed}",
        history=result.history,
        images=images,
        labels=labels,
        probabilities=probabilities,
        config=asdict(config),
        headline={
            "Weights of step": f"{kept:,} of {made:,}",
            "Parameters": f"{tree.count(result.state.params):,}",
            "Time": f"{seconds:.0f} s",
        },
        class_names=class_names,
        best_step=kept if kept < made else None,
    )
    mistakes = f"{wrong:,} mistake{'s' * (wrong != 1)} in {total:,}"
    print(f"test accuracy {100 * (1 - wrong / total):.2f} % ({mistakes}), {seconds:.0f} s")
    print(f"report: {page}")
    return 1 - wrong / total
