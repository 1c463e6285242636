import importlib

import numpy as np
import pytest

from fnn.types import Weighted

boxes = importlib.import_module("experiments.digits_boxes")


def test_a_canvas_has_a_digit_inside_of_its_box_or_neither():
    ink = np.zeros((6, 8, 8))
    ink[:, 2:7, 3:5] = 16
    batch = boxes.canvases(np.random.default_rng(0), ink, np.arange(6))
    where, edges = batch.y["box"]["where"], boxes.SIDE * batch.y["box"]["edges"]
    assert where.sum() == 6 and len(where) == 9
    assert (batch.y["digit"] == boxes.NONE).tolist() == (~where).tolist()
    assert sorted(batch.y["digit"][where]) == list(range(6))
    for x, (left, upper, right, lower) in zip(batch.x[where, ..., 0], edges[where], strict=True):
        rows, columns = np.nonzero(x > 0.5)
        assert (left, right) == (columns.min(), columns.max() + 1) and right - left == 2
        assert (upper, lower) == (rows.min(), rows.max() + 1) and lower - upper == 5
    assert (batch.x[~where] < 0.5).all()


def test_the_overlap_of_boxes_is_intersection_over_union():
    edges = np.array([[0.0, 0.0, 0.5, 0.5]] * 4, np.float32)
    guesses = edges + np.array([[0, 0, 0, 0], [0.25, 0, 0.25, 0], [0.5, 0, 0.5, 0], [0, 0, 0.5, 0]])
    where = np.array([True, True, True, False])
    found = boxes.overlap({"box": guesses}, {"box": {"edges": edges, "where": where}})
    np.testing.assert_allclose(found.values, [1, 1 / 3, 0, 0.5], rtol=1e-6)
    assert isinstance(found, Weighted) and found.weights.tolist() == [1, 1, 1, 0]


@pytest.mark.slow
def test_both_losses_fall_and_are_in_the_history_by_name(tmp_path):
    config = boxes.Config(steps=60, eval_every=30, out=tmp_path / "run")
    [run] = boxes.shared.open_runs(config, "digits_boxes")
    accuracy, result = boxes.train(config, boxes.make_recipe(config), run)
    assert result.history.valid.keys() == {"loss", "digit", "box", "accuracy", "overlap"}
    assert 0 <= accuracy <= 1
    for name, factor in (("digit", 0.97), ("box", 0.7)):
        course = result.history.train[name]
        assert course[-10:].mean() < factor * course[:10].mean(), name
