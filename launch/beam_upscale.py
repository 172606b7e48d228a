"""Upscales images on many machines with Apache Beam, using the same code as `a2f upscale`.

Requires the extra `[beam]`. This command runs on the local machine, with Beam's DirectRunner:

    python launch/beam_upscale.py --images 'photos/**/*.jpg' --output upscaled --weights sd_x4.safetensors

Beam's options choose another runner, for example
`--runner DataflowRunner --project P --region R --temp_location gs://bucket/tmp`. The images, the output folder and
the weights can be on any file system that Beam supports, such as `gs://bucket/photos/**.png`.

The output folder receives the upscaled images, in the same subfolders as below the part of the glob before its first
wildcard; `manifest-*.jsonl`, with a line for every image that was upscaled or skipped; and `dead_letter-*.jsonl`, with
a line for every image that failed and why. Hidden files are skipped, files that are no images and those in the output
folder are ignored. A second run skips the images whose results exist with the format and the size that they would get;
other existing files are not replaced.
"""

import argparse
import difflib
import io
import json
import os
import pathlib
import posixpath
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io import fileio
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.utils.shared import Shared

from a2f_jax.catalog import FORMATS, READABLE_SUFFIXES

FAILED = "failed"


def fixed_part(glob: str) -> str:
    """Returns the folder that all matches of a glob share: the part before its first wildcard."""
    wildcard = min((glob.find(c) for c in "*?[" if c in glob), default=len(glob))
    return posixpath.dirname(glob[:wildcard])


def is_input(path: str, root: str, output: str) -> bool:
    """Returns whether a match of the glob is an image to upscale: not another file, and not a result of an earlier run.

    Args:
      path: the match.
      root: the folder below which subfolders are kept.
      output: the output folder.
    """
    path, root, output = (f"{posixpath.normpath(each)}/" for each in (path, root, output))
    is_result = path.startswith(output) and not root.startswith(output)
    return path.rstrip("/").lower().endswith(READABLE_SUFFIXES) and not is_result


def output_of(path: str, root: str, output: str, format_name: str | None) -> str:
    """Returns the output file of an image.

    Args:
      path: the image.
      root: the folder below which subfolders are kept.
      output: the output folder.
      format_name: the output format, a key of `FORMATS`. None: that of the image, or PNG if it cannot be written.
    """
    stem, suffix = posixpath.splitext(FileSystems.join(output, posixpath.relpath(path, root)))
    if format_name or not any(suffix.lower() in each.suffixes for each in FORMATS.values()):
        suffix = FORMATS[format_name or "PNG"].suffixes[0]
    return stem + suffix


class _Loaded:
    # The threads of a process take turns: each would take the whole memory and all cores.
    def __init__(self, weights: str):
        import a2f_jax

        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder, posixpath.basename(weights))
            with FileSystems.open(weights) as file:
                local.write_bytes(file.read())
            self.upscaler = a2f_jax.load(local).upscaler()
        self.lock = threading.Lock()


class Upscale(beam.DoFn):
    """Maps an output file and its images to entries of the manifest, or to entries tagged `FAILED`."""

    def __init__(self, weights: str, root: str):
        self._weights, self._root = weights, root
        self._shared = Shared()

    def setup(self) -> None:
        """Loads the weights, once for each process."""
        self._loaded = self._shared.acquire(lambda: _Loaded(self._weights))

    def process(self, element: tuple[str, Iterable[str]]) -> Iterator[Any]:
        """Upscales one image.

        Args:
          element: the output file and the images that would be written to it, which are all refused unless it is one.
            Files can be on any file system that Beam supports.

        Yields:
          An entry for each image, of the manifest or of the dead letters.
        """
        from a2f_jax.errors import UserError

        target, paths = element[0], sorted(element[1])
        for path in paths:
            hidden = any(part.startswith(".") for part in posixpath.relpath(path, self._root).split("/"))
            try:
                if hidden:
                    yield {"image": path, "status": "skipped", "reason": "hidden"}
                elif len(paths) > 1:
                    raise UserError(f"{', '.join(paths)} have the same output file {target}: upscale them separately")
                else:
                    yield self._upscale(path, target)
            except UserError as error:  # Beam tries again after all others, such as those of a network
                yield beam.pvalue.TaggedOutput(FAILED, {"image": path, "error": str(error)})

    def _upscale(self, path: str, target: str) -> dict[str, Any]:
        from a2f_jax.images.reading import read_picture
        from a2f_jax.images.writing import check_format, format_of, write_picture
        from a2f_jax.upscaling.enlarge import enlarge, enlargement_of

        format_name = format_of(pathlib.PurePosixPath(target))
        content = _read(path)
        if FileSystems.exists(target):
            self._check_existing(path, content, target, format_name)
            return {"image": path, "output": target, "status": "skipped", "reason": "the output file exists"}
        picture = read_picture(content, name=path)
        upscaler = self._loaded.upscaler
        to = enlargement_of(picture, upscaler.scale, None, FORMATS[format_name].sixteen_bit)
        check_format(format_name, target, picture, to.height, to.width)
        result = io.BytesIO()
        with self._loaded.lock:
            strips = enlarge(upscaler, picture, to, lambda _: None)
            write_picture(result, format_name, (to.height, to.width, to.channels), to.dtype, strips, picture)
        _write(target, result.getvalue())
        return {"image": path, "output": target, "status": "done", "width": to.width, "height": to.height}

    def _check_existing(self, path: str, content: bytes, target: str, format_name: str) -> None:
        from a2f_jax.errors import UserError
        from a2f_jax.images.reading import read_size

        _, height, width = read_size(content, name=path)
        scale = self._loaded.upscaler.scale
        expected = format_name, height * scale, width * scale
        if read_size(_read(target), sys.maxsize, upright=False, name=target) != expected:
            raise UserError(f"{target} exists with another format or size than expected: choose another output folder")


def _read(path: str) -> bytes:
    with FileSystems.open(path, mime_type="application/octet-stream") as file:
        return file.read()


def _write(target: str, content: bytes) -> None:
    # Written under another name first: a file with the final name is always complete.
    folder, _ = FileSystems.split(target)
    if not FileSystems.exists(folder):
        try:
            FileSystems.mkdirs(folder)
        except OSError:  # another worker has just created it
            if not FileSystems.exists(folder):
                raise
    # A name of its own, because Beam may run a bundle twice at the same time.
    partial = FileSystems.join(folder, f".{uuid.uuid4().hex}.partial")
    with FileSystems.create(partial, mime_type="application/octet-stream") as file:
        file.write(content)
    FileSystems.rename([partial], [target])


def _absolute(path: str) -> str:
    # So that results are recognized among the images, whatever form the two paths have.
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _check_misspelled(parser: argparse.ArgumentParser, beam_args: Sequence[str]) -> None:
    # Beam only warns of options that it does not know.
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    for argument in beam_args:
        if close := difflib.get_close_matches(argument.partition("=")[0], known, 1, cutoff=0.8):
            parser.error(f"unrecognized argument {argument}: did you mean {close[0]}?")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the pipeline and waits until it has finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, metavar="GLOB", help="the images, such as 'photos/**/*.jpg'")
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for the upscaled images, the manifest and the dead letters",
    )
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="a .safetensors file, or a .pt file of the authors"
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        type=str.upper,
        help="output format (default: from the file name)",
    )
    args, beam_args = parser.parse_known_args(argv)
    _check_misspelled(parser, beam_args)
    images, output, weights = map(_absolute, (args.images, args.output, args.weights))
    if not FileSystems.exists(weights):  # otherwise every worker would fail
        parser.error(f"there is no file {weights}: pass a .safetensors file, such as `a2f convert` writes")
    root = fixed_part(images)
    options = PipelineOptions(beam_args)
    options.view_as(SetupOptions).save_main_session = True
    with beam.Pipeline(options=options) as pipeline:
        done = (
            pipeline
            | "Find" >> fileio.MatchFiles(images)
            | "Images" >> beam.Filter(lambda match: is_input(match.path, root, output))
            | "Output" >> beam.Map(lambda match: (output_of(match.path, root, output, args.format), match.path))
            | "Group" >> beam.GroupByKey()  # this also distributes the images over the workers
            | "Upscale" >> beam.ParDo(Upscale(weights, root)).with_outputs(FAILED, main="done")
        )
        for name, entries in (("manifest", done.done), ("dead_letter", done[FAILED])):
            prefix = FileSystems.join(output, name)
            entries | f"{name} lines" >> beam.Map(json.dumps) | name >> beam.io.WriteToText(prefix, ".jsonl")


if __name__ == "__main__":
    main()
