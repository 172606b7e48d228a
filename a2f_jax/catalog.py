"""Lists the scales, the benchmark sets and the image file formats.

Importing this module must stay fast: `a2f --help` needs it.
"""

import dataclasses
import importlib.util
from typing import NamedTuple

SCALES = (2, 3, 4)
"""Upscaling factors of the A2F networks."""

DEFAULT_SCALE = 4
"""Scale of the weights that the name of a variant stands for if none is requested."""

MIN_SIZE = 48
"""Smallest side, in LR pixels, that a photograph may have by default: the patch size of `configs/a2f.py`."""


class BenchmarkSet(NamedTuple):
    """A set of images on which papers report scores.

    Attributes:
      title: name as printed in papers.
      spellings: names under which its folder is distributed, in lower case.
    """

    title: str
    spellings: tuple[str, ...]


BENCHMARK_SETS = {
    "set5": BenchmarkSet("Set5", ("set5",)),
    "set14": BenchmarkSet("Set14", ("set14",)),
    "b100": BenchmarkSet("B100", ("b100", "bsd100", "bsds100")),
    "urban100": BenchmarkSet("Urban100", ("urban100",)),
    "manga109": BenchmarkSet("Manga109", ("manga109",)),
}
"""Benchmark sets by name, in the column order of the paper's tables."""


@dataclasses.dataclass(frozen=True)
class Format:
    """Capabilities of an output format.

    Attributes:
      suffixes: file name suffixes in lower case, the usual one first.
      max_side: largest width and height in pixels.
      sixteen_bit: whether it supports 16 bits per channel.
      alpha: whether it supports transparency.
      in_strips: whether it is written strip by strip, so that the image may be larger than memory.
      max_bytes: largest size of the pixels, or None for any.
      quality: whether files have a quality, 1 to 100.
    """

    suffixes: tuple[str, ...]
    max_side: int
    sixteen_bit: bool = False
    alpha: bool = True
    in_strips: bool = False
    max_bytes: int | None = None
    quality: bool = False


FORMATS = {
    "PNG": Format((".png",), 2**31 - 1, sixteen_bit=True, in_strips=True),
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jif", ".jfif"), 65500, alpha=False, quality=True),
    "WEBP": Format((".webp",), 16383, quality=True),
    "TIFF": Format((".tif", ".tiff"), 2**31 - 1, sixteen_bit=True, in_strips=True),
    "BMP": Format((".bmp",), 2**31 - 1, alpha=False, max_bytes=2**32 - 2**12),
    "AVIF": Format((".avif",), 65536, quality=True),
}
"""Output formats by Pillow's name for them."""


class Plugin(NamedTuple):
    """An optional package that adds an input format.

    Attributes:
      format: Pillow's name for the format.
      module: module that registers the format with Pillow.
      suffixes: file name suffixes in lower case.
    """

    format: str
    module: str
    suffixes: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether the module can be imported."""
        return importlib.util.find_spec(self.module) is not None


PLUGINS = (
    Plugin("HEIF", "pillow_heif", (".heic", ".heif", ".hif")),
    Plugin("JXL", "pillow_jxl", (".jxl",)),
)
"""Input formats of the extra `formats`."""

READABLE_SUFFIXES = (
    *(suffix for form in FORMATS.values() for suffix in form.suffixes),
    *(".gif", ".mpo", ".apng", ".avifs"),  # with one frame
    *(suffix for plugin in PLUGINS if plugin.installed for suffix in plugin.suffixes),
)
"""Suffixes, in lower case, of the files in a folder that are read as images."""

OTHER_IMAGE_SUFFIXES = (
    *(suffix for plugin in PLUGINS if not plugin.installed for suffix in plugin.suffixes),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".exr", ".hdr", ".psd", ".xcf", ".svg", ".eps", ".pdf", ".tga", ".ico"),
    *(".dds", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    *(".pef", ".nrw", ".srw", ".3fr", ".erf", ".iiq", ".jxr", ".wdp", ".qoi", ".dib"),
)
"""Suffixes, in lower case, of image files that cannot be read, so that a batch can name what it leaves out."""


class ExportFormat(NamedTuple):
    """A file format that models are exported to.

    Attributes:
      title: what it is.
      library: an optional module that writes it.
    """

    title: str
    library: str


EXPORT_FORMATS = {
    ".onnx": ExportFormat("a graph for ONNX Runtime and others", "onnx"),
    ".stablehlo": ExportFormat("a program for JAX without this package", "flatbuffers"),
}
"""Formats of exported models by the suffix of the file."""
