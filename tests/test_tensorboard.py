"""The event files are read back byte by byte, and say what the rows say."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorboardX")

from fnn.checkpoint import RunDir
from fnn.report import TensorBoard, tensorboard
from fnn.train import fit, silent
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, STEPS, assert_same_bits, recipe


def events(path: Path):
    """The events of all files in the order of writing, from TensorFlow's record format:

    length (8 bytes), its checksum (4), the message, its checksum (4).
    """
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(path.glob("events.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def scalars(path: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, as TensorBoard sees it: a restart drops what was later."""
    found: dict[str, dict[int, float]] = {}
    for event in events(path):
        if event.session_log.status == event.session_log.START:
            found = {
                tag: {step: v for step, v in points.items() if step < event.step}
                for tag, points in found.items()
            }
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def fit_tiny(store, recipe=recipe, **changes):
    arguments = dict(
        key=KEY,
        hyper=HYPER,
        steps=STEPS,
        batch_size=BATCH,
        eval_every=EVERY,
        progress=silent,
        store=store,
    )
    return fit(recipe, DATA, **(arguments | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    with TensorBoard(path) as store:
        return fit_tiny(store), scalars(path)


def test_a_fit_is_in_the_event_file_step_by_step_before_it_is_closed(whole):
    result, found = whole
    names = ("loss", "lr", "grad_norm", "update_norm", "param_norm")
    for name in names:
        points = found[f"train/{name}"]
        assert list(points) == list(range(STEPS))
        np.testing.assert_array_equal(np.float32(list(points.values())), result.history.train[name])
    for name, values in result.history.valid.items():
        points = found[f"valid/{name}"]
        assert [step + 1 for step in points] == result.history.eval_steps.tolist()
        np.testing.assert_array_equal(np.float32(list(points.values())), values)
    assert len(found) == len(names) + len(result.history.valid)


def test_a_resumed_fit_shows_each_step_once(tmp_path, whole):
    def store():
        return TensorBoard(tmp_path / "events", RunDir(tmp_path / "run"))

    with store() as first:
        fit_tiny(first, steps=EVERY + 2)
        first.log([{"step": STEPS + 9, "loss": 99.0}])  # after the checkpoint: to be dropped
    with store() as second:
        result = fit_tiny(second, resume=True)
    expected = dict(whole[1]["valid/loss"])
    found = scalars(tmp_path / "events")
    assert found["train/loss"] == whole[1]["train/loss"]
    # The shorter fit evaluated after its own last step too.
    assert {s: v for s, v in found["valid/loss"].items() if s != EVERY + 1} == expected
    assert_same_bits(result.state, whole[0].state)


def test_a_chunk_is_thinned_to_so_many_points_with_the_last_one(tmp_path):
    with TensorBoard(tmp_path, most_points=3) as store:
        store.log([{"step": i, "loss": float(i)} for i in range(10)])
        store.log([{"step": 10, "loss": 10.0}, {"step": 10, "valid": {"loss": 5.0}}])
    found = scalars(tmp_path)
    assert found["train/loss"] == {2: 2.0, 5: 5.0, 9: 9.0, 10: 10.0}
    assert found["valid/loss"] == {10: 5.0}


def test_the_other_store_gets_every_row(tmp_path):
    other = RunDir(tmp_path / "run")
    rows = [{"step": i, "loss": float(i)} for i in range(10)]
    with TensorBoard(tmp_path / "events", other, most_points=1) as store:
        store.log(rows)
        store.save("last", {"w": np.ones(2, np.float32)}, {"step": 10})
        assert store.has("last") and not store.has("best")
        assert store.load("last", {"w": np.ones(2, np.float32)})[1] == {"step": 10}
    assert other.rows(up_to_step=9) == rows


def test_a_loss_that_is_not_finite_is_written_as_such(tmp_path):
    with TensorBoard(tmp_path) as store:
        store.log([{"step": 0, "loss": float("nan"), "lr": float("inf")}])
    found = scalars(tmp_path)
    assert np.isnan(found["train/loss"][0]) and np.isinf(found["train/lr"][0])


def test_without_another_store_nothing_is_there_to_load(tmp_path):
    with TensorBoard(tmp_path) as store:
        assert not store.has("last") and store.rows(up_to_step=3) == []
        with pytest.raises(ValueError, match="expected a store to load from, got none"):
            store.load("last", {})


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    tensorboard._package.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fnn\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_without_measures_only_loss_and_lr_are_written(tmp_path):
    with TensorBoard(tmp_path) as store:
        fit_tiny(store, lambda hyper: recipe(hyper)._replace(measures=()))
    written = {tag for tag in scalars(tmp_path) if tag.startswith("train")}
    assert written == {"train/loss", "train/lr"}
