"""The estimated quality of JPEG files, against the quality that Pillow saved them with."""

import io

import numpy as np
import pytest
from PIL import Image

from a2f_jax.images import decoding
from a2f_jax.images.jpeg_quality import LUMA_TABLE, estimate_quality, scaled_table
from a2f_jax.images.reading import read_picture


def saved(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))


def test_every_quality_gives_itself_back(image):
    qualities = range(1, 101)
    assert [read_picture(saved(image, quality=quality)).jpeg_quality for quality in qualities] == list(qualities)


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"optimize": True}, {"subsampling": "4:4:4"}, {"keep_rgb": True}, {"exif": b"Exif\0\0"}],
    ids=str,
)
@pytest.mark.parametrize("quality", [30, 60, 87, 88, 95])
def test_the_quality_does_not_depend_on_other_options(image, quality, options):
    assert read_picture(saved(image, quality=quality, **options)).jpeg_quality == quality


def test_gray_and_multi_picture_files_have_the_quality_of_their_first_table(image):
    assert read_picture(saved(image.convert("L"), quality=60)).jpeg_quality == 60
    mpo = saved(image, "MPO", save_all=True, append_images=[image.resize((8, 8))], quality=60)
    assert read_picture(mpo).jpeg_quality == 60


def test_cmyk_files_have_a_quality(image, monkeypatch):
    # Instead of a color profile, which would have to be downloaded.
    monkeypatch.setattr(decoding, "_to_srgb", lambda image, name: np.asarray(image.convert("RGB")))
    assert read_picture(saved(image.convert("CMYK"), quality=60)).jpeg_quality == 60


def test_the_table_is_that_of_the_first_component_whatever_its_number(image):
    """Swaps the numbers of both tables, in their definitions and in the frame header."""
    content = bytearray(saved(image, quality=60, subsampling="4:4:4"))
    tables = [i for i in range(len(content)) if content[i : i + 2] == b"\xff\xdb"]
    for start in tables:
        content[start + 4] ^= 1
    frame = content.index(b"\xff\xc0")
    for component in range(3):
        content[frame + 12 + 3 * component] ^= 1
    assert [content[start + 4] for start in tables] == [1, 0]
    assert read_picture(bytes(content)).jpeg_quality == 60


def test_the_steps_of_a_file_are_taken_row_by_row(image, monkeypatch):
    """Files store them in zigzag order, in which Pillow gave them before version 8.3."""
    monkeypatch.setattr(decoding, "estimate_quality", list)
    assert read_picture(saved(image, quality=50)).jpeg_quality == LUMA_TABLE.ravel().tolist()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF", "GIF", "BMP"])
def test_other_formats_have_no_quality(image, form):
    assert read_picture(saved(image, form)).jpeg_quality is None


@pytest.mark.parametrize(("factor", "quality"), [(0.1, 95), (0.2, 90), (0.5, 75), (2, 25)])
def test_tables_of_other_encoders_have_the_quality_of_the_closest(factor, quality):
    """Multiplies every step of quality 50 by a factor that differs by up to 10 %."""
    noise = np.random.default_rng(0).uniform(0.9, 1.1, 64)
    table = np.maximum(1, np.round(LUMA_TABLE.ravel() * factor * noise)).astype(int)
    assert abs(estimate_quality(table.tolist()) - quality) <= 1
    assert table.tolist() != scaled_table(LUMA_TABLE, quality, np).ravel().tolist()


def test_extreme_tables_have_a_quality(image):
    assert estimate_quality([1] * 64) == 100
    assert estimate_quality([65535] * 64) == 1  # 16 bits
    content = bytearray(saved(image, quality=60))
    start = content.index(b"\xff\xdb") + 5
    content[start : start + 64] = bytes(64)  # damaged, but decoded without an error
    assert read_picture(bytes(content)).jpeg_quality == 100
