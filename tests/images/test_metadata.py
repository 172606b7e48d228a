"""Checks orientations and resolutions."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from a2f_jax.images.metadata import orientation_of, read_exif
from a2f_jax.images.reading import read_picture
from a2f_jax.images.writing import write_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def saved(form, exif, **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form, exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_tiff_without_a_resolution_gives_none(form):
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb")
    assert read_picture(file.getvalue()).dpi is None
    again = io.BytesIO()
    write_picture(again, form, PIXELS.shape, PIXELS.dtype, [PIXELS], read_picture(file.getvalue()))
    assert read_picture(again.getvalue()).dpi is None


@pytest.mark.parametrize("value", [0, 9, 65535, "6", (6, 6)])
def test_an_invalid_orientation_counts_as_upright(value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert orientation_of(exif) == 1


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
@pytest.mark.parametrize(("orientation", "turned"), [(1, False), (3, False), (6, True), (8, True)])
def test_resolutions_turn_with_the_image(form, orientation, turned):
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x011B], exif[0x0128] = orientation, 72.0, 144.0, 2
    picture = read_picture(saved(form, exif.tobytes(), dpi=(72, 144)))
    expected = (144, 72) if turned else (72, 144)
    assert picture.dpi == expected
    tags = read_exif(picture.exif)
    assert (tags[0x011A], tags[0x011B]) == expected
