"""Upscales images on many machines with Apache Beam, using the same code as `a2f upscale`.

Requires the extra `[beam]`. This command runs on the local machine, with Beam's DirectRunner:

    python launch/beam_upscale.py --images 'photos/**/*.jpg' --output upscaled --weights sd_x4.safetensors

Beam's options choose another runner, for example
`--runner DataflowRunner --project P --region R --temp_location gs://bucket/tmp`. The images, the output folder and
the weights can be on any file system that Beam supports, such as `gs://bucket/photos/**.png`.

The output folder receives the upscaled images, in the same subfolders as below the part of the glob before its first
wildcard; `manifest-*.jsonl`, with a line for every image that was upscaled or skipped; and `dead_letter-*.jsonl`, with
a line for every image that failed and why. A second run skips the images whose results exist.
"""

import argparse
import io
import json
import pathlib
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io import fileio
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

FAILED = "failed"


def fixed_part(glob: str) -> str:
    """Returns the folder that all matches of a glob share: the part before its first wildcard."""
    wildcard = min((glob.find(c) for c in "*?[" if c in glob), default=len(glob))
    return posixpath.dirname(glob[:wildcard])


class Upscale(beam.DoFn):
    """Maps the path of an image to an entry of the manifest, or to one tagged `FAILED`."""

    def __init__(self, weights: str, root: str, output: str, form: str | None):
        self._weights, self._root, self._output, self._form = weights, root, output, form

    def setup(self) -> None:
        """Loads the weights, once for each worker."""
        import a2f_jax

        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder, posixpath.basename(self._weights))
            with FileSystems.open(self._weights) as file:
                local.write_bytes(file.read())
            self._upscaler = a2f_jax.load(local).upscaler()

    def process(self, path: str) -> Iterator[Any]:
        """Upscales one image.

        Args:
          path: the image, on any file system that Beam supports.

        Yields:
          Its entry in the manifest, or in the dead letters.
        """
        from a2f_jax.errors import UserError

        target = FileSystems.join(self._output, posixpath.relpath(path, self._root))
        try:
            yield self._upscale(path, target)
        except UserError as error:
            reason = str(error).replace("standard input", path)
            yield beam.pvalue.TaggedOutput(FAILED, {"image": path, "error": reason})

    def _upscale(self, path: str, target: str) -> dict[str, Any]:
        from a2f_jax.catalogue import FORMATS
        from a2f_jax.images.reading import read_picture
        from a2f_jax.images.writing import check_format, format_of, write_picture
        from a2f_jax.upscaling.enlarge import enlarge, enlargement_of

        if self._form:
            target = posixpath.splitext(target)[0] + FORMATS[self._form].suffixes[0]
        form = format_of(pathlib.PurePosixPath(target))
        if FileSystems.exists(target):
            return {"image": path, "output": target, "status": "skipped"}
        with FileSystems.open(path, mime_type="application/octet-stream") as file:
            picture = read_picture(file.read())
        to = enlargement_of(picture, self._upscaler.scale, None, FORMATS[form].sixteen_bit)
        check_format(form, target, picture, to.height, to.width)
        content = io.BytesIO()
        strips = enlarge(self._upscaler, picture, to, lambda _: None)
        write_picture(content, form, (to.height, to.width, to.channels), to.dtype, strips, picture)
        _write(target, content.getvalue())
        return {"image": path, "output": target, "status": "done", "width": to.width, "height": to.height}


def _write(target: str, content: bytes) -> None:
    # Written under another name first: a file with the final name is always complete.
    folder, name = FileSystems.split(target)
    if not FileSystems.exists(folder):
        try:
            FileSystems.mkdirs(folder)
        except OSError:  # Another worker has just created it.
            if not FileSystems.exists(folder):
                raise
    partial = FileSystems.join(folder, f".{name}.partial")
    with FileSystems.create(partial, mime_type="application/octet-stream") as file:
        file.write(content)
    FileSystems.rename([partial], [target])


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
        choices=("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF"),
        help="output format (default: from the file name)",
    )
    args, beam_args = parser.parse_known_args(argv)
    options = PipelineOptions(beam_args)
    options.view_as(SetupOptions).save_main_session = True
    with beam.Pipeline(options=options) as pipeline:
        done = (
            pipeline
            | "Find" >> fileio.MatchFiles(args.images)
            | "Path" >> beam.Map(lambda match: match.path)
            | "Spread" >> beam.Reshuffle()
            | "Upscale"
            >> beam.ParDo(Upscale(args.weights, fixed_part(args.images), args.output, args.format)).with_outputs(
                FAILED, main="done"
            )
        )
        for name, entries in (("manifest", done.done), ("dead_letter", done[FAILED])):
            prefix = FileSystems.join(args.output, name)
            entries | f"{name} lines" >> beam.Map(json.dumps) | name >> beam.io.WriteToText(prefix, ".jsonl")


if __name__ == "__main__":
    main()
