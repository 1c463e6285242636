"""GPT-2 on an accelerator: fnn's tokens a second and share of the peak beside torch.compile's.

    python experiments/benchmarks/accelerator.py --peak-tflops 989      # an H100 in bfloat16
    python experiments/benchmarks/accelerator.py --layers 2 --features 64 --heads 2 --length 32

GPT-2 small, 124 M parameters, batch 16, context 1,024, computed in bfloat16 with the parameters and
AdamW in float32, behind a clip by norm. On CUDA fnn's attention is cuDNN's, by `jax.nn`, and
torch's its scaled dot product, compiled with the model under autocast. Both take turns, round by
round; a ratio is fnn's time over torch's, below 1 where fnn is ahead: the median, with the
quartiles beside it. A training step is counted as 6 N + 12 L T E operations a token (Chowdhery et
al. 2022, arXiv:2204.02311, appendix B). `training.py` and `sweeps.py` run on an accelerator as they
are.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.peers.machine import describe
from experiments.benchmarks.peers.work import B2, CLIP_NORM, LR, WEIGHT_DECAY
from fnn import losses, models, optim, schedules, tree
from fnn.combinators import mixed_bfloat16
from fnn.train import make_init, make_step
from fnn.types import Recipe

Steps = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Config:
    batch: int = 16
    length: int = 1024
    features: int = 768
    layers: int = 12
    heads: int = 12
    vocabulary: int = 50304  # GPT-2's, rounded up to a multiple of 64
    scan: bool = True  # one block, looped over; False: all of them written out
    peak_tflops: float | None = None  # of the device in bfloat16, for the share of it
    steps: int = 10  # of a round
    rounds: int = 7
    out: Path = Path("runs/benchmarks")


def cudnn(query: Any, key: Any, value: Any, *, mask: Any = None, bias: Any = None) -> Any:
    """Causal attention by cuDNN, which needs no mask for it."""
    return jax.nn.dot_product_attention(
        query, key, value, bias=bias, is_causal=True, implementation="cudnn"
    )


def tokens(config: Config) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    text = draws.integers(config.vocabulary, size=(config.batch, config.length + 1), dtype=np.int32)
    return text[:, :-1].copy(), text[:, 1:].copy()


def of_fnn(config: Config) -> tuple[Steps, int]:
    """Its steps, and the number of its parameters."""
    shape = models.gpt2(
        vocabulary=config.vocabulary,
        max_length=config.length,
        features=config.features,
        num_layers=config.layers,
        num_heads=config.heads,
        bias=False,
        scan=config.scan,
    )
    if jax.default_backend() == "gpu":
        block = replace(shape.block, attend=cudnn)
        shape = replace(shape, block=block)

    def recipe(hyper: Any) -> Recipe:
        matrices = tree.matching("*kernel", "*table")
        adamw = optim.adamw(b2=B2, weight_decay=WEIGHT_DECAY, mask=matrices)
        plain = Recipe(
            model=models.gpt(shape),
            loss=losses.cross_entropy,
            optimizer=optim.chain(optim.clip_by_global_norm(CLIP_NORM), adamw),
            schedule=schedules.constant(hyper["lr"]),
        )
        return mixed_bfloat16(plain)

    key, hyper = jax.random.key(0), {"lr": jnp.float32(LR)}
    x, y = map(jnp.asarray, tokens(config))
    state, step = make_init(recipe)(key, hyper, x), make_step(recipe)

    def steps(n: int) -> None:
        nonlocal state
        for _ in range(n):
            state, metrics = step(state, (x, y), key, hyper)
        jax.block_until_ready(metrics.values)

    return steps, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def of_torch(config: Config) -> Steps:
    import torch
    import torch.nn.functional as F
    from torch import nn

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    width, heads = config.features, config.heads
    linear = partial(nn.Linear, bias=False)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
            self.qkv, self.out = linear(width, 3 * width), linear(width, width)
            self.up, self.down = linear(width, 4 * width), linear(4 * width, width)

        def forward(self, x):
            b, t, e = x.shape
            parts = self.qkv(self.norms[0](x)).split(e, dim=2)
            q, k, v = (h.view(b, t, heads, e // heads).transpose(1, 2) for h in parts)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, e))
            return x + self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(config.vocabulary, width)
            self.positions = nn.Embedding(config.length, width)
            self.blocks = nn.ModuleList(Block() for _ in range(config.layers))
            self.norm = nn.LayerNorm(width, bias=False)
            for p in self.parameters():
                if p.dim() >= 2:
                    nn.init.normal_(p, std=0.02)

        def forward(self, x):
            h = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
            for block in self.blocks:
                h = block(h)
            return F.linear(self.norm(h), self.tokens.weight)

    torch.manual_seed(0)
    model = GPT().to(device)
    x, y = (torch.from_numpy(a).to(device).long() for a in tokens(config))
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, B2), fused=True)

    @torch.compile
    def mean_loss(x, y):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model(x)
        return F.cross_entropy(logits.float().flatten(0, 1), y.flatten())

    def steps(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            mean_loss(x, y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return steps


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
    batch = config.batch * config.length
    print(f"{parameters:,} parameters on {jax.devices()[0].device_kind}; {describe()['versions']}")
    for name, each in times.items():
        rate = batch / float(np.median(each))
        line = f"  {name:15}{rate:12,.0f} tokens a second"
        if config.peak_tflops:
            line += f"   {rate * operations / config.peak_tflops / 1e12:.1%} of the peak"
        if name != "fnn":
            ratios = np.array(times["fnn"]) / np.array(each)
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            line += f"   fnn / {name} {middle:.3f} ({low:.3f}-{high:.3f})"
        print(line)
    config.out.mkdir(parents=True, exist_ok=True)
    whole = {"machine": describe(), "config": asdict(config), "seconds_of_a_step": times}
    (config.out / "accelerator.json").write_text(json.dumps(whole, indent=1, default=str))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
