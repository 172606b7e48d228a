"""Image files in, upscaled image files out; one bad file does not stop the others."""

import pathlib
import sys
from collections.abc import Sequence

from tqdm import tqdm

from a2f_jax.data import read_rgb, write_image
from a2f_jax.errors import UserError
from a2f_jax.models.model import Model

SMALLEST = 8
"""Fewest pixels of a side that an image may have."""


def output_paths(images: Sequence[pathlib.Path], output: pathlib.Path) -> list[pathlib.Path]:
    """Says where each result goes.

    Args:
      images: the files to upscale.
      output: a file, for one image; a folder, which need not exist, for any number. What has an ending and is
        not a folder counts as a file.

    Returns:
      One path per image: `output` itself, or the image's name in the folder.

    Raises:
      UserError: two images would be written to the same file.
    """
    if len(images) == 1 and output.suffix and not output.is_dir():
        return [output]
    targets = [output / image.name for image in images]
    seen: dict[pathlib.Path, pathlib.Path] = {}
    for image, target in zip(images, targets, strict=True):
        if target in seen:
            raise UserError(f"{seen[target]} and {image} would both be written to {target}: upscale them separately")
        seen[target] = image
    return targets


def _upscale_file(model: Model, image: pathlib.Path, target: pathlib.Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists: choose another output or pass --overwrite")
    pixels = read_rgb(image)
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        raise UserError(f"{image} is {width}×{height} pixels: an image needs at least {SMALLEST}×{SMALLEST}")
    write_image(target, model.upscale(pixels))


def upscale_files(
    model: Model, images: Sequence[pathlib.Path], output: pathlib.Path, *, overwrite: bool = False
) -> None:
    """Upscales files. A file that fails is reported on stderr and the others are still done.

    Args:
      model: what upscales them.
      images: PNG, JPEG, WebP, TIFF or BMP files.
      output: see `output_paths`.
      overwrite: replace files that exist.

    Raises:
      UserError: at least one file could not be upscaled; with several files the message is the summary.
    """
    targets = output_paths(images, output)
    failed = []
    for image, target in tqdm(list(zip(images, targets, strict=True)), unit="image", disable=len(images) == 1):
        try:
            _upscale_file(model, image, target, overwrite)
        except UserError as error:
            if len(images) == 1:
                raise
            tqdm.write(f"a2f: {error}", file=sys.stderr)
            failed.append(image)
    if failed:
        names = ", ".join(map(str, failed))
        raise UserError(f"{len(failed)} of {len(images)} images failed: {names}; the others are in {output}")
