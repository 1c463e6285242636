"""The strictest settings that JAX has, for every test.

float64 stays off; a test that needs it enters `jax.enable_x64`.
"""

import gc
import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests ask whether programs are right, not how quick they are, and most of their time goes to the
# compiler: without its slow passes they take two thirds. `make test-all` has them.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1",
)

# Many tests compile the same program, in one process or in two.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache/jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# JAX keeps what it has traced and compiled: a full collection takes seconds and finds nothing.
gc.set_threshold(100_000, 50, 100)

# Compilations make the first examples slow, and a test must not fail by the luck of its draws.
settings.register_profile("fnn", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("fnn")

HERE = Path(__file__).parent
NO_TORCH = importlib.util.find_spec("torch") is None
collect_ignore = (
    [p.name for p in HERE.glob("test_*.py") if "torch" in p.read_text()] if NO_TORCH else []
)


@pytest.fixture(autouse=True)
def checked_keys(request):
    """Checks for keys that are used twice; all tests have them with the slow ones.

    With them JAX runs each operation anew in Python. By default they are on where noise is drawn.
    """
    drawn = request.path.name.startswith(("test_laws", "test_augment", "test_drop", "test_init"))
    with jax.debug_key_reuse(drawn or "slow or" in request.config.option.markexpr):
        yield


@pytest.fixture(autouse=True)
def seeded_torch():
    """torch draws its first weights from a generator that the whole process shares."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """`pytest.mark.sampled(n)`: but for every n-th, the cases of a test that are not slow are."""
    seen: dict[str, int] = {}
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark and not item.get_closest_marker("slow"):
            name = item.nodeid.partition("[")[0]
            seen[name] = seen.get(name, -1) + 1
            if seen[name] % mark.args[0]:
                item.add_marker(pytest.mark.slow)


def pytest_report_header():
    if NO_TORCH:
        return f"without torch, these are skipped: {', '.join(sorted(collect_ignore))}"
