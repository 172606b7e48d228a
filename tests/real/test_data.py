"""The images that results are based on: the photographs, and LR images that MATLAB created."""

import hashlib
import pathlib

import numpy as np
import pytest

from a2f_jax.data import matlab_bicubic
from a2f_jax.images import read_rgb

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("folder", "scale", "count"),
    [(f"{name}/image_SRF_{scale}", scale, count) for name, count in (("Set5", 5), ("Set14", 14)) for scale in (2, 3, 4)]
    + [("BSD100/image_SRF_4", 4, 100)],
)
def test_matlab_bicubic_reproduces_the_lr_images_of_the_benchmark_sets(shared, folder, scale, count):
    files = sorted((shared / "data/SelfExSR" / folder).glob("*_HR.png"))
    assert len(files) == count
    for file in files:
        hr = read_rgb(file)
        height, width = (size // scale * scale for size in hr.shape[:2])
        lr = read_rgb(file.with_name(file.name.replace("_HR", "_LR")))
        np.testing.assert_array_equal(matlab_bicubic(hr[:height, :width], 1 / scale), lr, err_msg=file.name)


def test_the_photographs_that_the_weights_were_trained_on_are_listed(shared):
    folder = shared / "data/open-photos"
    listed = (ROOT / "docs/results/open-photos.sha256").read_text().splitlines()
    expected = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder)}"
        for file in sorted(folder.glob("*/*.webp"))
    ]
    assert listed == expected
