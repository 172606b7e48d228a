"""Recognizes file formats by the first bytes of their content."""

import os
import pathlib
import re

from a2f_jax.catalog import FORMATS, PLUGINS

HEAD_SIZE = 512
"""Number of bytes from the start of a file that suffice to recognize it."""

_SIGNATURES = (
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("JPEG", rb"\xff\xd8\xff"),
    ("WEBP", rb"RIFF....WEBP"),
    ("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),  # the last is the size of the next header
    ("GIF", rb"GIF8[79]a"),
    ("AVIF", rb"....ftyp(avif|avis|(mif1|msf1|miaf).{4}(.{4})*?(avif|avis))"),
    ("HEIF", rb"....ftyp(heic|heix|heim|heis|hevc|hevx|hevm|hevs|mif1|msf1|miaf)"),
    ("JXL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    ("camera raw", rb"II\*\0....CR|IIU\0|II?RO|IIRS|MMOR|FUJIFILMCCD-RAW|\0MRM|FOVb|....ftypcrx "),
    ("TIFF", rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    ("JPEG 2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ("JPEG XR", rb"II\xbc"),
    ("OpenEXR", rb"\x76\x2f\x31\x01"),
    ("Radiance HDR", rb"#\?(RADIANCE|RGBE)"),
    ("PDF", rb"%PDF-"),
    ("EPS", rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml.*?)?(<!--.*?-->\s*)*(<!DOCTYPE svg.*?)?<svg\b"),
    ("Photoshop", rb"8BPS"),
    ("GIMP", rb"gimp xcf"),
    ("DirectDraw Surface", rb"DDS "),
    ("Netpbm", rb"P[1-7Ff]\s"),
    ("QOI", rb"qoif"),
    ("icon", rb"\0\0[\x01\x02]\0([^\0]|\0[^\0])"),
    ("video", rb"\x1a\x45\xdf\xa3|RIFF....AVI |....ftyp|\0\0\x01[\xb3\xba]|OggS"),
    ("archive", rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf|BZh|\xfd7zXZ"),
    ("web page", rb"\s*<(?i:!doctype\s+html|html|head)\b"),
    ("Git LFS pointer", rb"version https://git-lfs"),
)
_COMPILED = tuple((name, re.compile(pattern, re.DOTALL)) for name, pattern in _SIGNATURES)

_DECODED = (*FORMATS, "GIF")

_REMEDIES = {
    "HEIF": "a HEIC image, which needs pillow-heif: install 'a2f_jax[formats]', or convert it to PNG",
    "JXL": "a JPEG XL image, which needs pillow-jxl-plugin: install 'a2f_jax[formats]', or convert it to PNG",
    "camera raw": "a camera raw file: develop it to a 16-bit TIFF or PNG",
    "JPEG 2000": "a JPEG 2000 image, which is not supported: convert it to PNG",
    "JPEG XR": "a JPEG XR image, which is not supported: convert it to PNG",
    "OpenEXR": "an OpenEXR image, whose high dynamic range is not supported: tone-map it to a 16-bit PNG",
    "Radiance HDR": "a Radiance HDR image, whose high dynamic range is not supported: tone-map it to a 16-bit PNG",
    "PDF": "a PDF document: export its pages as PNG",
    "EPS": "a PostScript file: render it to PNG",
    "SVG": "an SVG drawing, which has no pixels: render it to PNG at the size you need",
    "Photoshop": "a Photoshop document: export it as PNG or TIFF",
    "GIMP": "a GIMP document: export it as PNG or TIFF",
    "DirectDraw Surface": "a DirectDraw Surface texture, which is not supported: convert it to PNG",
    "Netpbm": "a Netpbm image, which is not supported: convert it to PNG",
    "QOI": "a QOI image, which is not supported: convert it to PNG",
    "icon": "an icon file, which holds images of several sizes: save one of them as PNG",
    "video": "a video: extract its frames as PNG first",
    "archive": "an archive: extract its files first",
    "web page": "a web page, not an image: download the image again",
    "Git LFS pointer": "a Git LFS pointer, not an image: run git lfs pull",
}


def recognize(head: bytes) -> str | None:
    """Returns the name of a file format.

    Args:
      head: the first bytes of the file; `HEAD_SIZE` suffice.

    Returns:
      Pillow's name for a format that it decodes, possibly with a plugin; the name of another format; or None.
    """
    return next((name for name, pattern in _COMPILED if pattern.match(head)), None)


def readable_formats() -> tuple[str, ...]:
    """Returns Pillow's names for the formats that are read, those of installed plugins included."""
    return (*_DECODED, *(plugin.format for plugin in PLUGINS if plugin.installed))


def remedy(name: str) -> str:
    """Says what a file of an unsupported format is and what to do about it, to follow "the file is"."""
    return _REMEDIES[name]


def is_cut_off(path: pathlib.Path) -> bool:
    """Returns whether the end of a PNG or JPEG file is missing, by its last bytes; false for other formats.

    Args:
      path: an existing file.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_SIZE)
        file.seek(max(0, file.seek(0, os.SEEK_END) - 12))
        end = file.read()
    match recognize(head):
        case "PNG":
            return end[4:8] != b"IEND"
        case "JPEG":
            return not end.endswith(b"\xff\xd9")
    return False
