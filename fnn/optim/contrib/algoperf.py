"""Optimizers with the settings that AlgoPerf tuned once for all of its tasks.

The tasks are image classification by convolution and by attention, speech recognition by two
models, translation, molecules, click prediction and MRI reconstruction. Each point was chosen to
serve all of them without tuning, under the benchmark's "self-tuning" rules.
"""

from fnn.expect import within
from fnn.optim.adam_variants import nadamw
from fnn.optim.schedule_free import schedule_free_adamw
from fnn.tree import Mask
from fnn.types import Optimizer, Scalar


@within(weight_decay="[0, inf)", b1="[0, 1)", b2="[0, 1)", eps="[0, inf)")
def algoperf_nadamw(
    *,
    weight_decay: Scalar = 0.08121616522670176,
    mask: Mask | None = None,
    b1: Scalar = 1 - 0.06733926164,
    b2: Scalar = 0.9955159689799007,
    eps: Scalar = 1e-8,
) -> Optimizer:
    """NAdamW with AlgoPerf's settings.

    Their lr is 1.7486e-3, with a linear warm-up over the first 2 % of the steps and a cosine decay
    to 0, as in the example.

    Args:
      weight_decay, b1, b2, eps: as in `nadamw`.
      mask: which leaves decay; None is all of them, as in the benchmark.

    State: AdamState.
    Source: Dahl et al. 2023, arXiv:2306.07179; the self-tuning baseline (full budget) of
      mlcommons/algorithmic-efficiency. Deviates: the benchmark divides the whole numerator by
      1 - b1^t, so its first step is 1 + b1 of Adam's, ours 1 + b1 / (1 + b1); the two agree after
      some 1 / (1 - b1) steps, which is during the warm-up.

    >>> from fnn.schedules import warmup_cosine
    >>> lr = warmup_cosine(1.7486e-3, warmup_steps=20, total_steps=1000)
    >>> opt, params = algoperf_nadamw(), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.ones(1)}, opt.init(params), params, lr(20))
    >>> float(f"{updates['w'][0] / lr(20):.3g}")
    -1.48
    """
    return nadamw(weight_decay=weight_decay, mask=mask, b1=b1, b2=b2, eps=eps)


@within(weight_decay="[0, inf)", beta="(0, 1)", b2="[0, 1)", eps="[0, inf)")
def algoperf_schedule_free_adamw(
    *,
    weight_decay: Scalar = 0.08121616522670176,
    mask: Mask | None = None,
    beta: Scalar = 0.9,
    b2: Scalar = 0.9955159689799007,
    eps: Scalar = 1e-8,
) -> Optimizer:
    """Schedule-free AdamW with the settings that won AlgoPerf's self-tuning rules.

    Their lr is 2.5e-3, constant after a linear warm-up over the first 2 % of the steps. The number
    of steps need not be known: training can stop at any point.

    Args:
      weight_decay, beta, b2, eps: as in `schedule_free_adamw`.
      mask: which leaves decay; None is all of them, as in the benchmark.

    State: as `schedule_free_adamw`; evaluate with `weights`, as `fnn.train` does.
    Source: Defazio et al. 2024, arXiv:2405.15682, section 4.4.

    >>> opt, params = algoperf_schedule_free_adamw(), {'w': jnp.zeros(1)}
    >>> updates, _ = opt.update({'w': jnp.ones(1)}, opt.init(params), params, 2.5e-3)
    >>> float(f"{updates['w'][0]:.3g}")
    -0.0025
    """
    return schedule_free_adamw(weight_decay=weight_decay, mask=mask, beta=beta, b2=b2, eps=eps)
