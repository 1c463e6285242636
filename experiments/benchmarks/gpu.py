"""All that is measured on a GPU, in one command of under ten minutes.

    python experiments/benchmarks/gpu.py                     # on a GPU
    python experiments/benchmarks/gpu.py --parts gpt2 sweep
    python experiments/benchmarks/gpu.py --tiny              # on any machine: does all of it run?

The parts, each a process of its own with a limit of time, so that one that fails costs no other:

    attention   `layers.attention` beside its dense and its tiled implementation, and `jax.nn`'s
    gpt2        GPT-2 124M: tokens per second, utilization, beside torch.compile (`accelerator.py`)
    cifar       CIFAR-10 to 94 % (`cifar_speedrun.py`), several times; needs the data set
    sweep       1,024 small runs as one program, beside one after another (`sweeps.py`)

Needs JAX and NumPy; torch where it is installed. What was printed, with date, versions and commit,
goes to <out>/gpu.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

LIMITS = {"attention": 90, "gpt2": 240, "cifar": 140, "sweep": 120}  # seconds; 590 in all
HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))  # a GPU's machine may not have fnn installed


def attention(tiny: bool, out: Path) -> None:
    """Forward and backward pass of causal attention, in bfloat16, at three lengths."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from fnn import layers

    def of_jax(q: Any, k: Any, v: Any) -> Any:
        how: Any = "cudnn" if jax.default_backend() == "gpu" else None
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=how)

    def of_fnn(how: Any) -> Callable[..., Any]:
        mask = layers.AttentionMask(causal=True)
        return lambda q, k, v: layers.attention(q, k, v, mask=mask, implementation=how)

    ways = {name: of_fnn(name) for name in ("auto", "dense", "blockwise")} | {"jax.nn": of_jax}
    for length in (64, 128) if tiny else (1024, 4096, 8192):
        batch = max(1, 32768 // length) if not tiny else 2
        keys = jax.random.split(jax.random.key(0), 3)
        q, k, v = (jax.random.normal(key, (batch, length, 12, 64), jnp.bfloat16) for key in keys)
        cells = []
        for name, way in ways.items():
            loss = lambda q, k, v, way=way: way(q, k, v).astype(jnp.float32).sum()  # noqa: E731
            program = jax.jit(jax.grad(loss, (0, 1, 2)))
            try:
                jax.block_until_ready(program(q, k, v))
            except jax.errors.JaxRuntimeError as error:
                cells.append(f"{name} {str(error).split(':')[0]}")
                continue
            times = []
            for _ in range(3 if tiny else 20):
                start = time.perf_counter()
                jax.block_until_ready(program(q, k, v))
                times.append(1e3 * (time.perf_counter() - start))
            cells.append(f"{name} {np.median(times):.2f} ms")
        print(f"  {batch} x {length}: " + ", ".join(cells), flush=True)


def gpt2(tiny: bool, out: Path) -> None:
    from experiments.benchmarks import accelerator

    config = accelerator.Config(out=out, rounds=5)
    if tiny:
        config = replace(config, batch=2, length=32, features=32, heads=2, layers=2)
        config = replace(config, vocabulary=128, steps=1, rounds=2)
    accelerator.main(config)


def cifar(tiny: bool, out: Path) -> None:
    import numpy as np

    from experiments import cifar_speedrun
    from fnn.types import Batch

    if not tiny:
        cifar_speedrun.main(cifar_speedrun.Config(runs=10))
        return

    def noise(n: int) -> Batch:
        images = np.random.default_rng(0).integers(256, size=(n, 32, 32, 3)).astype(np.uint8)
        return Batch(images, np.arange(n, dtype=np.int32) % 10)

    cifar_speedrun.main(
        cifar_speedrun.Config(
            widths=(24, 25, 26),
            half=False,
            epochs=1.0,
            batch_size=10,
            train_examples=20,
            test_examples=12,
        ),
        load=lambda config: (noise(20), noise(12)),
    )


def sweep(tiny: bool, out: Path) -> None:
    from experiments.benchmarks import sweeps

    config = sweeps.Config(out=out, rounds=3, runs=1, peers=("torch", "Flax Linen"))
    small = replace(config, members=4, steps=8, rounds=2, most_others=float("inf"))
    sweeps.main(small if tiny else config)


PARTS = {part.__name__: part for part in (attention, gpt2, cifar, sweep)}


def ran(name: str, tiny: bool, out: Path) -> dict[str, Any]:
    """A part in a process of its own: what it printed, how it ended, and its seconds."""
    command = [sys.executable, str(HERE), "--one", name, "--out", str(out)]
    # So that torch has memory too.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    start = time.monotonic()
    try:
        done = subprocess.run(
            command + ["--tiny"] * tiny,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=LIMITS[name],
            check=False,
        )
        text, code = done.stdout, str(done.returncode)
    except subprocess.TimeoutExpired as expired:
        text, code = (expired.stdout or b"").decode(), f"stopped after {LIMITS[name]} s"
    return {"code": code, "seconds": round(time.monotonic() - start, 1), "output": text}


def commit() -> str:
    asked = ["git", "-C", str(HERE.parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git
        return "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="small shapes, for any machine")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        PARTS[given.one](given.tiny, given.out)
        return 0
    from experiments.benchmarks.peers.machine import describe

    found: dict[str, Any] = {"commit": commit(), "machine": describe(), "parts": {}}
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.parts:
        print(f"{name}:", flush=True)
        found["parts"][name] = part = ran(name, given.tiny, given.out)
        print(f"{part['output'].rstrip()}\n  exit {part['code']}, {part['seconds']} s", flush=True)
        (given.out / "gpu.json").write_text(json.dumps(found, indent=1, default=str))
    return int(any(part["code"] != "0" for part in found["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
