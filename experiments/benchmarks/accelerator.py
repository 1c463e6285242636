"""GPT-2 on an accelerator: tokens per second and utilization of fnn beside torch.compile.

    python experiments/benchmarks/accelerator.py
    python experiments/benchmarks/accelerator.py --layers 2 --features 64 --heads 2 --length 32

GPT-2 small, 124 M parameters, batch 16, context 1,024, computed in bfloat16 with the parameters and
AdamW in float32, with gradients clipped by norm. fnn's attention is `layers.attention`, on CUDA
cuDNN's; torch's is its scaled dot product, compiled with the model under autocast. Both take turns,
round by round. A ratio is the time of fnn over that of torch, below 1 where fnn is faster: the
median, with the quartiles beside it. A training step counts as 6 N + 12 L T E operations per token
(Chowdhery et al. 2022, arXiv:2204.02311, appendix B). `gpu.py` runs this and more.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.peers.machine import describe
from experiments.benchmarks.peers.of_fnn import clipped_adamw
from experiments.benchmarks.peers.ratios import ratio_of, shown
from experiments.benchmarks.peers.work import CLIP_NORM, LR
from fnn import losses, models, schedules
from fnn.activations import gelu
from fnn.nn import mixed_bfloat16
from fnn.plan import CHIPS
from fnn.recipe import Recipe
from fnn.train import make_init, make_step

Steps = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Config:
    batch: int = 16
    length: int = 1024
    features: int = 768
    layers: int = 12
    heads: int = 12
    vocabulary: int = 50304  # GPT-2's, rounded up to a multiple of 64
    scan: bool = True  # one block, looped over; False: unrolled
    peak_tflops: float | None = None  # in bfloat16, for the utilization; None: from `fnn.plan`
    steps: int = 10  # of a round
    rounds: int = 7
    out: Path = Path("runs/benchmarks")


def tokens(config: Config) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    text = draws.integers(config.vocabulary, size=(config.batch, config.length + 1), dtype=np.int32)
    return text[:, :-1].copy(), text[:, 1:].copy()


def of_fnn(config: Config) -> tuple[Steps, int]:
    """Its steps, and the number of its parameters."""
    shape = models.gpt.gpt2(
        vocab_size=config.vocabulary,
        max_length=config.length,
        features=config.features,
        num_layers=config.layers,
        num_heads=config.heads,
        activation=gelu,
        bias=False,
        scan=config.scan,
    )

    def recipe(hyper: Any) -> Recipe:
        plain = Recipe(
            model=models.gpt.gpt(shape),
            loss=losses.cross_entropy,
            optimizer=clipped_adamw(),
            schedule=schedules.constant(hyper["lr"]),
        )
        return mixed_bfloat16(plain)

    key, hyper = jax.random.key(0), {"lr": jnp.float32(LR)}
    x, y = map(jnp.asarray, tokens(config))
    state = jax.jit(make_init(recipe))(key, hyper, x)
    step = jax.jit(make_step(recipe), donate_argnums=0)

    def steps(n: int) -> None:
        nonlocal state
        for _ in range(n):
            state, metrics = step(state, (x, y), key, hyper)
        jax.block_until_ready(metrics)

    return steps, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def of_torch(config: Config) -> Steps:
    import torch
    import torch.nn.functional as F

    from experiments.benchmarks.peers.of_torch import GPT, adamw

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    c = config
    torch.manual_seed(0)
    model = GPT(c.vocabulary, c.length, c.features, c.heads, c.layers).to(device)
    x, y = (torch.from_numpy(a).to(device).long() for a in tokens(config))
    optimizer = adamw(model)

    @torch.compile
    def mean_loss(x, y):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model(x)
        return F.cross_entropy(logits.float().flatten(0, 1), y.flatten())

    def steps(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            mean_loss(x, y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return steps


def peak_of(config: Config) -> float | None:
    """Operations per second of the device at most, if known."""
    if config.peak_tflops:
        return config.peak_tflops * 1e12
    kind = jax.devices()[0].device_kind.lower()
    return next((chip.flops for name, chip in CHIPS.items() if name in kind), None)


def seconds(steps: Steps, n: int) -> float:
    start = time.perf_counter()
    steps(n)
    return (time.perf_counter() - start) / n


def main(config: Config) -> None:
    ours, parameters = of_fnn(config)
    running = {"fnn": ours}
    if PEERS["torch compiled"].installed:
        running["torch.compile"] = of_torch(config)
    for steps in running.values():
        steps(2)
    times: dict[str, list[float]] = {name: [] for name in running}
    for i in range(config.rounds):
        for name in list(running)[:: 1 if i % 2 == 0 else -1]:
            times[name].append(seconds(running[name], config.steps))
    operations = 6 * parameters + 12 * config.layers * config.length * config.features
    batch, peak = config.batch * config.length, peak_of(config)
    print(f"{parameters:,} parameters on {jax.devices()[0].device_kind}; {describe()['versions']}")
    for name, each in times.items():
        rate = batch / float(np.median(each))
        line = f"  {name:15}{rate:12,.0f} tokens a second"
        if peak:
            line += f"   {rate * operations / peak:.1%} of the peak"
        if name != "fnn":
            line += f"   fnn / {name} {shown(ratio_of(times['fnn'], each))}"
        print(line)
    config.out.mkdir(parents=True, exist_ok=True)
    whole = {"machine": describe(), "config": asdict(config), "seconds_of_a_step": times}
    (config.out / "accelerator.json").write_text(json.dumps(whole, indent=1, default=str))


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config, description=__doc__))
