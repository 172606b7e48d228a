"""Checks that files of unsupported formats are recognized by their content and named with a remedy."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from a2f_jax import catalog
from a2f_jax.errors import UserError
from a2f_jax.images import signatures
from a2f_jax.images.reading import read_picture
from a2f_jax.images.signatures import readable_formats, recognize, remedy


def box(brand, *compatible):
    names = b"".join((brand, bytes(4), *compatible))
    return (len(names) + 8).to_bytes(4, "big") + b"ftyp" + names


CONTENTS = {
    "HEIF": [box(b"heic", b"mif1", b"heic"), box(b"mif1", b"heic"), box(b"msf1")],
    "AVIF": [box(b"avif", b"mif1"), box(b"mif1", b"miaf", b"avif")],
    "JXL": [b"\xff\x0a\xfa\x7f", b"\0\0\0\x0cJXL \r\n\x87\n"],
    "camera raw": [b"II*\0\x10\0\0\0CR\2\0", box(b"crx ", b"isom"), b"FUJIFILMCCD-RAW 0201", b"IIRO\x08\0"],
    "JPEG 2000": [b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51\0\x2f"],
    "OpenEXR": [b"\x76\x2f\x31\x01\2\0\0\0"],
    "Radiance HDR": [b"#?RADIANCE\n"],
    "PDF": [b"%PDF-1.7\n"],
    "EPS": [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6"],
    "SVG": [b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg width="1"/>'],
    "Photoshop": [b"8BPS\0\1"],
    "Netpbm": [b"P6\n4 4\n255\n", b"Pf\n"],
    "icon": [b"\0\0\1\0\1\0"],
    "video": [box(b"isom", b"mp42"), box(b"qt  "), b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI LIST"],
    "archive": [b"PK\3\4\x14\0", b"\x1f\x8b\x08"],
    "web page": [b"<!DOCTYPE html>\n<html>", b"\n <html lang='en'>"],
    "Git LFS pointer": [b"version https://git-lfs.github.com/spec/v1\n"],
}


@pytest.mark.parametrize(("name", "content"), [(n, c) for n, contents in CONTENTS.items() for c in contents])
def test_formats_are_recognized_by_their_content(name, content):
    assert recognize(content + bytes(100)) == name


@pytest.mark.parametrize("name", [name for name in CONTENTS if name not in ("AVIF", "HEIF", "JXL")])
def test_an_unsupported_format_is_named_with_a_remedy(tmp_path, name):
    path = tmp_path / "image.png"  # the name does not matter
    path.write_bytes(CONTENTS[name][0] + bytes(100))
    with pytest.raises(UserError) as error:
        read_picture(path)
    assert str(error.value) == f"{path} is {remedy(name)}"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_every_supported_format_is_recognized(form):
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, form)
    assert recognize(file.getvalue()) == form
    assert form in readable_formats()
    assert read_picture(file.getvalue()).format == form


@pytest.mark.parametrize("form", ["PPM", "ICO", "DIB", "TGA", "PCX", "JPEG2000", "EPS", "PDF"])
def test_formats_that_pillow_could_open_but_are_not_documented_are_refused(tmp_path, form):
    Image.new("RGB", (16, 16)).save(tmp_path / "image", form)
    (tmp_path / "image").rename(tmp_path / "image.png")
    with pytest.raises(UserError, match=r"image\.png is "):
        read_picture(tmp_path / "image.png")


def test_a_preview_in_a_camera_raw_file_is_not_read():
    preview = np.zeros((12, 16, 3), np.uint8)
    version = [(50706, "B", 4, b"\1\4\0\0", True)]
    for options in ({"extratags": version}, {"subifds": 1, "subfiletype": 1}):
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as tiff:
            tiff.write(preview, photometric="rgb", metadata=None, **options)
            if "subifds" in options:
                tiff.write(np.zeros((24, 32), np.uint16), photometric="minisblack", metadata=None)
        with pytest.raises(UserError, match="is a camera raw file: develop it to a 16-bit TIFF or PNG"):
            read_picture(file.getvalue())


@pytest.mark.parametrize(("name", "package"), [("HEIF", "pillow-heif"), ("JXL", "pillow-jxl-plugin")])
def test_a_missing_plugin_is_named(monkeypatch, name, package):
    monkeypatch.setattr(signatures, "PLUGINS", ())
    with pytest.raises(UserError, match=rf"needs {package}: install 'a2f_jax\[formats\]', or convert it to PNG"):
        read_picture(CONTENTS[name][0] + bytes(100))


@pytest.mark.parametrize("plugin", catalog.PLUGINS, ids=lambda plugin: plugin.format)
def test_an_installed_plugin_reads_its_format(plugin):
    module = pytest.importorskip(plugin.module)
    if plugin.format == "HEIF":
        module.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    pixels = coarse.repeat(16, 0).repeat(16, 1)
    file = io.BytesIO()
    options = {"use_container": True} if plugin.format == "JXL" else {}
    Image.fromarray(pixels).save(file, plugin.format, quality=95, exif=exif.tobytes(), **options)
    picture = read_picture(file.getvalue())
    assert picture.format == plugin.format
    upright = pixels if picture.pixels.shape == pixels.shape else np.rot90(pixels, -1)
    assert np.abs(picture.pixels.astype(int) - upright).mean() < 8
    written = Image.Exif()
    written.load(picture.exif)
    assert dict(written) == {0x010F: "a maker"}


def test_an_uncompressed_targa_image_is_not_an_icon():
    file = io.BytesIO()
    Image.new("RGB", (9, 12)).save(file, "TGA")
    assert file.getvalue().startswith(bytes([0, 0, 2, 0, 0, 0]))
    assert recognize(file.getvalue()) is None
