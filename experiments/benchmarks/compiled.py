"""What the compilers of accelerators make of a training step: memory, bytes moved, kernels.

    python experiments/benchmarks/compiled.py                  # every target that compiles here
    python experiments/benchmarks/compiled.py --targets v5e --networks gpt2 --libraries fnn Linen

Nothing is executed and no accelerator is needed: libtpu compiles for TPUs (`pip install
'jax[tpu]'`), and XLA's GPU compiler for the H100 of `h100.txtpb` (`pip install 'jax[cuda12]'`).
A target whose compiler is missing is left out. Each step is compiled in a process of its own; its
figures go to docs/assets/compiled.json, which keeps those of earlier calls, and all of them as
tables to docs/accelerators.md.

Temporaries are activations, gradients and workspace, without parameters, optimizer and batch. Bytes
moved are by the compiler's count, which TPUs alone have; it counts the body of a loop over blocks
once, for all libraries alike. The blocks of all are scanned.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TARGETS = {"h100": "H100", "v5e": "TPU v5e", "v5p": "TPU v5p", "v6e": "TPU v6e"}
MODULES = {"fnn": "fnn", "Linen": "linen", "NNX": "nnx", "Equinox": "equinox"}
GPT2_ONLY = ("NNX", "Equinox")
HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
FIGURES, PAGE = DOCS / "assets" / "compiled.json", DOCS / "accelerators.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def h100() -> Any:
    """An H100 to compile for, without a driver: by a plugin that JAX loads only where there is one.

    Call it before anything else that starts JAX. There is no public way yet.
    """
    import jax_plugins.xla_cuda12 as plugin  # type: ignore[import-not-found]
    from jax._src.lib import xla_client

    library = Path(plugin.__file__).parent / "xla_cuda_plugin.so"
    client = xla_client.load_pjrt_plugin_dynamically("cuda", str(library))
    xla_client.initialize_pjrt_plugin("cuda")
    spec = (HERE / "h100.txtpb").read_text()
    topology: Any = xla_client.make_c_api_device_topology(
        client, "", target_config=spec, topology="1x1x1"
    )
    return topology._make_compile_only_devices()[0]


def device_of(target: str) -> Any:
    if target == "h100":
        return h100()
    from fnn.plan import tpu_devices

    return tpu_devices(f"{target}:1")[0]


def compiled(target: str, network: str, library: str) -> dict[str, Any]:
    """The figures of one step; bytes, and seconds to compile."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
    device = device_of(target)
    import importlib

    import jax

    module = importlib.import_module(f"experiments.benchmarks.peers.large_{MODULES[library]}")
    cudnn = () if library == "fnn" else (target == "h100",)
    step, shapes = module.step_of(network, *cudnn)
    one = jax.sharding.SingleDeviceSharding(device)
    arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one), shapes)
    start, platform = time.perf_counter(), "cuda" if target == "h100" else "tpu"
    lowered = (
        jax.jit(step, donate_argnums=0).trace(*arguments).lower(lowering_platforms=(platform,))
    )
    try:
        program = lowered.compile()
    except Exception as error:  # the type is private
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"(?:temporaries \(|Used )([\d.]+)([KMG])", str(error))
        return {"out_of_memory": used and float(used[1]) * 1024 ** (1 + "KMG".index(used[2]))}
    memory, cost, text = program.memory_analysis(), program.cost_analysis() or {}, program.as_text()
    return {
        "temporaries": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "moved": cost.get("bytes accessed") if platform == "tpu" else None,
        "flops": cost.get("flops") if platform == "tpu" else None,
        "kernels": text.count(" fusion(") + text.count("custom-call("),
        "seconds": time.perf_counter() - start,
    }


def measured(target: str, network: str, library: str) -> dict[str, Any] | None:
    """`compiled`, in a process of its own."""
    command = [sys.executable, __file__, "--one", target, network, library]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ran.returncode:
        print(ran.stderr[-2000:], file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def available(target: str) -> bool:
    from importlib.util import find_spec

    return find_spec("jax_plugins") is not None if target == "h100" else bool(find_spec("libtpu"))


def versions() -> dict[str, str]:
    from experiments.benchmarks.peers.machine import describe

    found: dict[str, str] = describe()["versions"]
    return found


def page(figures: dict[str, Any]) -> str:
    """The tables of docs/accelerators.md."""
    from experiments.benchmarks.peers.large import NETWORKS

    lines = []
    for network, about in NETWORKS.items():
        lines += [f"### {about.title}", "", _HEADER, "|---|---|---:|---:|---:|---:|---:|---:|"]
        for target, title in TARGETS.items():
            rows = figures["steps"].get(target, {}).get(network, {})
            lines += [_row(title, library, rows) for library in MODULES if library in rows]
        lines.append("")
    used = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return "\n".join([*lines, f"Compiled with {used}."])


_HEADER = (
    "| target | library | temporaries, MB | fnn / it | bytes moved, GB | fnn / it "
    "| kernels | compiled in, s |"
)


def _row(title: str, library: str, rows: dict[str, Any]) -> str:
    own, ours = rows[library], rows.get("fnn", {})
    if "out_of_memory" in own:
        needed = f", {own['out_of_memory'] / 1e9:.1f} GB needed" if own["out_of_memory"] else ""
        return f"| {title} | {library} | out of memory{needed} | | | | | |"

    def number(name: str, unit: float, digits: int) -> str:
        return f"{own[name] / unit:,.{digits}f}" if own.get(name) else ""

    def ratio(name: str) -> str:
        both = library != "fnn" and own.get(name) and ours.get(name)
        return f"{ours[name] / own[name]:.2f}" if both else ""

    cells = [
        title,
        library,
        number("temporaries", 1e6, 0),
        ratio("temporaries"),
        number("moved", 1e9, 1),
        ratio("moved"),
        number("kernels", 1, 0),
        number("seconds", 1, 0),
    ]
    return f"| {' | '.join(cells)} |"


def write(figures: dict[str, Any]) -> None:
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{page(figures)}\n\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--networks", nargs="+", default=[])
    parser.add_argument("--libraries", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--one", nargs=3, metavar="WHAT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(compiled(*given.one)))
        return
    from experiments.benchmarks.peers.large import NETWORKS
    from experiments.benchmarks.peers.names import expect_names

    expect_names("--networks", given.networks, NETWORKS)
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"steps": {}}
    figures["versions"] = versions()
    for target in filter(available, given.targets):
        for network in given.networks or NETWORKS:
            for library in given.libraries:
                if library in GPT2_ONLY and not network.startswith("gpt2"):
                    continue
                found = measured(target, network, library)
                print(target, network, library, found, flush=True)
                if found is not None:
                    steps = figures["steps"].setdefault(target, {})
                    steps.setdefault(network, {})[library] = found
                    write(figures)


if __name__ == "__main__":
    main()
