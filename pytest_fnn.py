"""A plugin of pytest: strict settings of JAX, a fixture for keys, and a table of the laws.

pytest finds it where fnn is installed. It stands outside of the package, because neither fnn nor
JAX may be imported before a conftest has set the platform; each is imported where a test asks.

    pytest --fnn-strict      every test under strict promotion, checks of key reuse and of leaks
    pytest -m laws           only the tests made by `laws_of`
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

_OUTCOMES = pytest.StashKey[dict[str, Counter]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--fnn-strict`."""
    group = parser.getgroup("fnn")
    group.addoption(
        "--fnn-strict",
        action="store_true",
        help="strict dtype promotion, checks for reused keys and leaked tracers, NaN is an error",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers `laws` and `strict`."""
    config.addinivalue_line("markers", "laws: a test made by fnn.testing.laws_of, one per law")
    config.addinivalue_line("markers", "strict: run this test as --fnn-strict runs all")
    config.stash[_OUTCOMES] = {}


@pytest.fixture
def key(request: pytest.FixtureRequest) -> Any:
    """A typed key of the test's own: the same at every run, another for another test."""
    import zlib

    import jax

    return jax.random.key(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def recipe_runner() -> Any:
    """`recipe_runner(recipe, batch, hyper, steps=20) -> losses`: a training, in a few lines.

    The loss of each step on one batch, in a list of floats; compiled once.
    """
    import jax

    from fnn.train import make_init, make_step

    def run(recipe: Any, batch: Any, hyper: Any, steps: int = 20, seed: int = 0) -> list[float]:
        key = jax.random.key(seed)
        state = jax.jit(make_init(recipe))(key, hyper, batch[0])
        step = jax.jit(make_step(recipe))
        losses = []
        for _ in range(steps):
            state, metrics = step(state, batch, key, hyper)
            losses.append(float(metrics["loss"]))
        return losses

    return run


@pytest.fixture(autouse=True)
def _fnn_strict(request: pytest.FixtureRequest) -> Iterator[None]:
    """The strict settings, for `--fnn-strict` and for the marker `strict`."""
    marked = request.node.get_closest_marker("strict") is not None
    if not (marked or request.config.getoption("--fnn-strict")):
        yield
        return
    import jax

    with (
        jax.numpy_dtype_promotion("strict"),
        jax.debug_key_reuse(True),
        jax.checking_leaks(),
        jax.debug_nans(True),
    ):
        yield


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> None:
    """Notes what became of each law."""
    if item.get_closest_marker("laws") is None:
        return
    name = item.nodeid.partition("[")[0]
    outcomes = item.config.stash[_OUTCOMES].setdefault(name, Counter())
    if call.excinfo is None:
        outcomes["kept"] += call.when == "call"
    elif call.excinfo.errisinstance(pytest.skip.Exception):
        outcomes["skipped"] += 1
    else:
        outcomes["broken"] += 1
        outcomes[f"* {getattr(call.excinfo.value, 'law', '') or item.name}"] += 1


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line for each tested thing: how many laws are kept, broken and skipped, and which."""
    found = config.stash.get(_OUTCOMES, {})
    if not found:
        return
    terminalreporter.section("laws")
    width = max(map(len, found))
    terminalreporter.write_line(f"{'':{width}}  kept  broken  skipped")
    for name, outcomes in sorted(found.items()):
        broken = [law.removeprefix("* ") for law in outcomes if law.startswith("* ")]
        terminalreporter.write_line(
            f"{name:{width}}  {outcomes['kept']:4}  {outcomes['broken']:6}  "
            f"{outcomes['skipped']:7}  {', '.join(broken)}".rstrip(),
            red=bool(broken),
        )
