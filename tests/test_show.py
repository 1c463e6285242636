import numpy as np
import pytest

from fnn import data

IMAGES = np.random.default_rng(0).integers(256, size=(30, 6, 5, 3)).astype(np.uint8)


def texts(figure):
    return [cell.get_text().get_text() for cell in figure.axes[0].tables[0].get_celld().values()]


def test_images_are_shown_as_they_are_with_the_names_of_their_labels():
    figure = data.show((IMAGES, np.arange(30) % 3), classes=["cat", "dog"])
    assert len(figure.axes) == 24
    titles = [panel.get_title() for panel in figure.axes[:3]]
    assert titles == ["cat", "dog", "2, unknown"]
    np.testing.assert_allclose(figure.axes[7].images[0].get_array() * 255, IMAGES[7], atol=1e-4)


@pytest.mark.parametrize("x", [IMAGES[:5, :, :, 0] / 7.0 - 3, IMAGES[:5, :, :, :1]])
def test_gray_images_of_any_range_are_shown(x):
    shown = data.show((x, None)).axes[0].images[0].get_array()
    assert shown.shape == (6, 5) and 0 <= shown.min() and shown.max() <= 1


def test_rows_are_shown_with_the_names_of_their_columns():
    figure = data.show((np.array([[1.5, 2.0]]), np.array([0.25])), features=["a", "b"])
    assert set(texts(figure)) == {"a", "b", "label", "1.5", "2", "0.25"}
    wide = data.show((np.zeros((2, 20)), None))
    assert "and 8 more" in texts(wide)


def test_tables_and_text_are_shown():
    table = data.Table(columns={"age": np.array([39.0]), "sex": np.array(["F"])})
    assert set(texts(data.show((table, None)))) == {"age", "sex", "39", "F"}
    characters = data.Characters.of("ab\n")
    shown = texts(data.show(([characters.encode("a\nb")], None), decode=characters.decode))
    assert "a\\nb" in shown


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="data.show: expected at least one example"):
        data.show((np.zeros((0, 3)), None))
    with pytest.raises(ValueError, match=r"data.show: expected images .* got \(2, 3, 4, 5\)"):
        data.show((np.zeros((2, 3, 4, 5)), None))
