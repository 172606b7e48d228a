import numpy as np
import pytest

from a2f_jax.evaluation import panels
from a2f_jax.evaluation.panels import side_by_side


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 200, (3, 40, 60, 3), dtype=np.uint8)


@pytest.fixture
def captions(monkeypatch):
    drawn = []
    monkeypatch.setattr(panels.ImageDraw.ImageDraw, "text", lambda self, xy, line, *args, **kwargs: drawn.append(line))
    return drawn


def test_panels_show_the_enlarged_crops_in_order(images):
    inputs = [("a", images[0]), ("b", images[1])]
    picture = np.asarray(side_by_side(inputs, truth=images[2], shave=2, crop=(10, 5, 50, 25), enlarge=3))
    shown = [np.kron(image[5:25, 10:50], np.ones((3, 3, 1), np.uint8)) for image in images[:2]]
    rows, columns = np.nonzero((picture[:-60] != 255).any(-1))
    top, left = rows.min(), columns.min()
    np.testing.assert_array_equal(picture[top : top + 60, left : left + 120], shown[0])
    second = np.flatnonzero((picture[top : top + 60, left + 120 :] != 255).any((0, 2)))[0] + left + 120
    np.testing.assert_array_equal(picture[top : top + 60, second : second + 120], shown[1])


def test_captions_are_drawn_on_white_below_the_panels(images):
    bare = np.asarray(side_by_side([("", images[0])], truth=images[1], shave=2, enlarge=4))
    named = np.asarray(side_by_side([("A2F", images[0])], truth=images[1], shave=2, enlarge=4))
    np.testing.assert_array_equal(named[:170], bare[:170])
    below = named[180:]
    assert (below == 255).all(-1).mean() > 0.8
    assert below.min() < 60


def test_captions_show_the_scores_of_the_whole_image_except_for_the_ground_truth(images, captions):
    truth = images[0]
    near = truth.copy()
    near[:, :30] += 20  # outside the crop
    side_by_side([("near\n×2", near), ("truth", truth)], truth=truth, shave=2, crop=(40, 0, 60, 20))
    # Half of the remaining 56 columns differ by a luma of 20 · 219 / 255: 10 · log10(255² / 147.5).
    assert captions[:3] == ["near", "x2", "26.44 dB / " + captions[2][-6:]]
    assert 0.5 < float(captions[2][-6:]) < 1
    assert captions[3:] == ["truth", "PSNR / SSIM"]


def test_long_captions_fit_their_panel(images):
    words = "a caption of many words"
    picture = np.asarray(side_by_side([(words, images[0]), ("", images[1])], truth=images[2], shave=2, enlarge=2))
    columns = np.flatnonzero((picture[95:, : 8 + 120 + 8] < 128).any((0, 2)))  # up to the second panel
    assert columns.min() >= 8
    assert columns.max() < 8 + 120


def test_mismatched_images_and_crops_are_errors(images):
    with pytest.raises(ValueError, match="same shape"):
        side_by_side([("a", images[0]), ("b", images[1, 1:])], truth=images[0], shave=2)
    with pytest.raises(ValueError, match="not lie inside the image of 60×40"):
        side_by_side([("a", images[0])], truth=images[0], shave=2, crop=(50, 0, 70, 10))
