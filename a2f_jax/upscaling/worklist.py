"""Which images are upscaled, and where their results go: found and checked before the work begins."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

from a2f_jax import buckets
from a2f_jax.catalog import FORMATS, OTHER_IMAGE_SUFFIXES, READABLE_SUFFIXES
from a2f_jax.errors import UserError, shorten
from a2f_jax.files import as_path, check_replaceable, check_writable, expanded, identity, is_folder, resolved, walk
from a2f_jax.images.signatures import HEAD_SIZE, readable_formats, recognize

WRITABLE_SUFFIXES = frozenset(suffix for spec in FORMATS.values() for suffix in spec.suffixes)
"""Suffixes, in lower case, of the files that can be written."""

UNREADABLE = "unreadable"
"""The reason to leave out a file or folder without permission, or on a file system that fails."""

STDIO = pathlib.Path("-")
"""Standard input as an image, standard output as the output."""


@dataclasses.dataclass(frozen=True)
class Job:
    """An image file and the file to write its upscaled version to."""

    image: pathlib.Path
    output: pathlib.Path

    @property
    def name(self) -> str:
        """The image's name in messages."""
        return "standard input" if self.image == STDIO else str(self.image)


@dataclasses.dataclass(frozen=True)
class Worklist:
    """The images to upscale.

    Attributes:
      jobs: one for each image.
      ignored: the images, the files named like images, and the folders that are left out, each with the reason:
        `"hidden"`, `"in an unsupported format"`, `"without an image suffix"` or `UNREADABLE`.
      single: whether one image was named, rather than a folder or several images.
    """

    jobs: Sequence[Job]
    ignored: Sequence[tuple[pathlib.Path, str]] = ()
    single: bool = False


def input_path(image: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of an input image or folder.

    Args:
      image: the path, or a URL such as `gs://bucket/photo.jpg`; a leading `~` stands for the home folder, unless it is
        part of the name of an existing file, as patterns of the shell may produce it.

    Raises:
      UserError: the bucket cannot be used, or the user after `~` does not exist.
    """
    return pathlib.Path(image) if os.path.lexists(image) else as_path(image)


def list_jobs(
    images: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], format_name: str | None = None
) -> Worklist:
    """Pairs every input image with its output file.

    Args:
      images: files, folders that are searched recursively for images, patterns in a bucket such as
        `gs://bucket/photos/*.png`, or `STDIO` for standard input. Hidden files, and files in hidden folders, are left
        out of folders.
      output: a file if one image is named; a folder, which need not exist, for any number of images; or `STDIO` for
        standard output. A path that ends in a slash is a folder. Otherwise, with one image, a path that has a suffix
        and is not an existing folder is a file. Files and folders may be in a bucket.
      format_name: the output format, a key of `FORMATS`; output files in a folder get its suffix.

    Returns:
      One job for each image, and the files that were left out. In an output folder, files keep their names, and
      subfolders their structure.

    Raises:
      UserError: there are no images, two of them have the same output file, an output file is one of the images or
        cannot be written, or `output` is the name of an image file although there are several images.
    """
    paths = [path for image in images for path in expanded(input_path(image))]
    target = as_path(output)
    names_folder = os.fspath(output).endswith(("/", os.sep)) or is_folder(target)
    single = len(paths) == 1 and not is_folder(paths[0])
    ignored: list[tuple[pathlib.Path, str]] = []
    if single and (target == STDIO or (target.suffix and not names_folder)):
        if not format_name and target != STDIO and target.suffix.lower() not in WRITABLE_SUFFIXES:
            raise UserError(
                f"cannot write {target}: its suffix must be one of {', '.join(sorted(WRITABLE_SUFFIXES))}, or its name "
                "must end in / if it is a folder"
            )
        jobs = [Job(paths[0], target)]
    elif STDIO in (target, *paths):
        raise UserError("standard input and output (-) can carry only one image: pass one input and one output")
    elif not names_folder and target.suffix.lower() in WRITABLE_SUFFIXES:
        several = "a folder" if len(paths) == 1 else f"{len(paths)} files or folders"
        raise UserError(f"{target} is the name of one file, but the input is {several}: pass a folder for the output")
    else:
        jobs, ignored = _jobs_in_folder(paths, target, format_name)
    if not jobs:
        raise UserError(
            f"no images found in {', '.join(map(str, paths))}: pass a folder that contains PNG, JPEG, ... files"
            + (f" ({len(ignored)} were left out: {summarize(ignored)})" if ignored else "")
        )
    _check_outputs(jobs)
    return Worklist(jobs, ignored, single)


def summarize(ignored: Sequence[tuple[pathlib.Path, str]]) -> str:
    """Returns one line that counts what was left out by the reason, and names the first few of each."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in ignored:
        by_reason.setdefault(reason, []).append(str(path))
    return ", ".join(f"{len(names)} {reason} ({shorten(names)})" for reason, names in by_reason.items())


def _jobs_in_folder(
    paths: Sequence[pathlib.Path], target: pathlib.Path, format_name: str | None
) -> tuple[list[Job], list[tuple[pathlib.Path, str]]]:
    jobs: dict[str, Job] = {}  # by the image, which may be named twice: in its folder and by itself
    ignored: list[tuple[pathlib.Path, str]] = []
    for path in paths:
        found, whole = [path], is_folder(path)
        if whole:
            found, left_out = _search(path, target)
            ignored += left_out
        for image in found:
            output = target / (image.relative_to(path) if whole else image.name)
            if format_name or image.suffix.lower() not in WRITABLE_SUFFIXES:
                output = output.with_suffix(FORMATS[format_name or "PNG"].suffixes[0])
            jobs.setdefault(os.path.abspath(image), Job(image, output))
    return list(jobs.values()), ignored


def _search(folder: pathlib.Path, output: pathlib.Path) -> tuple[list[pathlib.Path], list[tuple[pathlib.Path, str]]]:
    # The images in a folder, at any depth, and the files that are left out.
    found: list[pathlib.Path] = []
    left_out: list[tuple[pathlib.Path, str]] = []

    def leave_out(error: OSError) -> None:
        left_out.append((pathlib.Path(error.filename), UNREADABLE))

    def files() -> Iterator[pathlib.Path]:
        if buckets.in_bucket(folder):
            yield from (folder / name for name in buckets.list_files(folder))
            return
        for parent, folders, names in walk(folder, leave_out):
            folders[:] = [name for name in folders if not is_output(parent / name)]
            yield from (parent / name for name in names)

    results, start = resolved(output), resolved(folder)

    def is_output(path: pathlib.Path) -> bool:  # it holds results of an earlier run
        path = resolved(path)
        return results in (path, *path.parents) and results not in (start, *start.parents)

    for path in files():
        suffix = path.suffix.lower()
        if suffix in READABLE_SUFFIXES:
            if any(part.startswith(".") for part in path.relative_to(folder).parts):
                left_out.append((path, "hidden"))
            elif buckets.in_bucket(path):
                if not any(map(is_output, path.parents)):
                    found.append(path)
            elif os.path.isfile(path):  # unlike that of a path, it raises no error in a folder without permission
                found.append(path)
            else:
                left_out.append((path, UNREADABLE))
        elif suffix in OTHER_IMAGE_SUFFIXES:
            left_out.append((path, "in an unsupported format"))
        elif not buckets.in_bucket(path) and _is_image(path):  # in a bucket, this would download every file
            left_out.append((path, "without an image suffix"))
    return sorted(found), sorted(left_out)


def _is_image(path: pathlib.Path) -> bool:
    # Such as photo.jpg~ or photo.png.1, if it is not hidden.
    if path.name.startswith(".") or not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            return recognize(file.read(HEAD_SIZE)) in readable_formats()
    except OSError:
        return False


def _check_outputs(jobs: Sequence[Job]) -> None:
    # Finds out before the work begins what would be lost, or could not be written, at its end.
    originals = {identity(job.image) for job in jobs if job.image != STDIO}
    inputs: dict[object, pathlib.Path] = {}
    colliding: list[str] = []
    for job in jobs:
        if job.output == STDIO:
            continue
        if identity(job.output) in originals:
            raise UserError(f"{job.output} is one of the input images: choose another output")
        check_replaceable(job.output)
        # Folders may be links to each other.
        other = inputs.setdefault((identity(job.output.parent), job.output.name), job.image)
        if other is not job.image:
            colliding.append(f"{other} and {job.image} have the same output file {job.output}")
    if colliding:
        raise UserError(f"{shorten(colliding, separator='; ')}: upscale them into different folders, or rename them")
    for folder in sorted({job.output.parent for job in jobs if job.output != STDIO}):
        check_writable(folder)
