"""Matches LR images to HR images in the folder layouts in which paired datasets are distributed."""

import collections
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from a2f_jax.data.sources import AnyPath, Source, image_files, stem
from a2f_jax.errors import UserError, shorten

# Names of folders, in lower case: LR, LR_bicubic, LRbicx4, low_resolution, ...; HR, Flickr2K_HR, GT, GTmod12, ...
_LR_FOLDER = re.compile(r"(?:^|[^a-z])lr|lr(?=x\d|$|[^a-z])|^low[-_ ]?res")
_HR_FOLDER = re.compile(r"(?:^|[^a-z])(?:hr|gt)(?:_?mod\d+)?(?:[^a-z]?x\d)?$|^original$|^high[-_ ]?res")
_SCALE_FOLDER = re.compile(r"x\d")
_SCALE = re.compile(r"x(\d)(?![a-z0-9])")

# What follows the name of an image in the name of its file: baby_HR_x4, babyx4, baby_LRBI_x4, img_001_SRF_4_LR, ...
_TOKEN = re.compile(
    r"(?:[-_. ](?P<kind>hr|gt|lr)(?:bi|bic|bicubic)?|[-_. ]?x(?P<x>\d)|[-_ ]srf[-_ ](?P<srf>\d))$", re.I
)


class _Stem(NamedTuple):
    base: str
    kind: str | None
    scale: int | None


def _parse(name: str) -> _Stem:
    base, kind, scale = stem(name), None, None
    while match := _TOKEN.search(base):
        base = base[: match.start()]
        kind = kind or (match["kind"] or "").lower() or None
        scale = scale or int(match["x"] or match["srf"] or 0) or None
    return _Stem(base, kind, scale)


def _of_scale(files: dict[str, AnyPath], scale: int, equal: Iterable[str] = ()) -> dict[str, AnyPath]:
    # Files whose names end in no other scale, or equal one of the given names: then the end belongs to the name.
    stems = {stem(name).lower() for name in equal}
    return {
        name: file for name, file in files.items() if _parse(name).scale in (None, scale) or stem(name).lower() in stems
    }


def _match(hr: dict[str, AnyPath], lr: dict[str, AnyPath], scale: int, hr_place: str, lr_place: str) -> list[Source]:
    by_stem = {stem(name).lower(): name for name in lr}
    by_base = collections.defaultdict(list)
    for name in lr:
        by_base[_parse(name).base.lower()].append(name)
    found = {}
    for name in hr:
        own = stem(name).lower()
        exact = next((by_stem[s] for s in (f"{own}x{scale}", f"{own}_x{scale}", own) if s in by_stem), None)
        alike = by_base[_parse(name).base.lower()]
        if exact or len(alike) == 1:
            found[name] = exact or alike[0]
    if not found:
        raise UserError(
            f"no LR image in {lr_place} belongs to an HR image in {hr_place} (they contain {next(iter(lr))} and "
            f"{next(iter(hr))}): give both the same name, with or without x{scale} at the end of the LR name"
        )
    in_hr, in_lr = (f" in {hr_place}", f" in {lr_place}") if hr_place != lr_place else ("", "")
    without_lr = [name for name in hr if name not in found]
    if without_lr:
        raise UserError(f"{lr_place} has no LR image for {shorten(without_lr)}{in_hr}: add or remove the images")
    without_hr = [name for name in lr if name not in found.values()]
    if without_hr:
        raise UserError(f"{hr_place} has no HR image for {shorten(without_hr)}{in_lr}: add or remove the images")
    for name, count in collections.Counter(found.values()).items():
        if count > 1:
            several = [other for other in hr if found[other] == name]
            raise UserError(f"{lr_place}/{name} belongs to {shorten(several)}{in_hr}: keep one of them")
    return [Source(stem(name), file, lr[found[name]]) for name, file in hr.items()]


def pairs_in_one_folder(folder: pathlib.Path, scale: int) -> list[Source]:
    """Finds the pairs in a folder with HR and LR images side by side, or with HR images only.

    HR images are those marked in their names (`img_001_SRF_4_HR.png`, `baby_GT.png`). Without any mark they are all
    images except the LR images of others, such as `babyx4.png` beside `baby.png`.

    Args:
      folder: contains the images.
      scale: the scale of the pairs.

    Returns:
      The pairs; empty without HR images, of which those that are marked may name their scale. Without LR images of
      this scale, LR is computed from HR.

    Raises:
      UserError: some images have no counterpart, or the folder contains LR images only.
    """
    files = image_files(folder)
    parsed = {name: _parse(name) for name in files}
    stems = {stem(name).lower() for name in files}
    names = {name: p.base for name, p in parsed.items() if p.kind in ("hr", "gt")}
    if is_marked := bool(names):
        lr = {name: files[name] for name, p in parsed.items() if p.kind == "lr"}
    else:
        # fox3x4.png may belong to fo.png or to fox3.png: all that looks like a mark is left out, or only its last part.
        shorter = {n: {p.base.lower(), _TOKEN.sub("", stem(n)).lower()} - {stem(n).lower()} for n, p in parsed.items()}
        lr = {name: files[name] for name, bases in shorter.items() if bases & stems}
        names = {name: stem(name) for name in files if name not in lr}
        if only_lr := [name for name in names if parsed[name].kind == "lr"]:
            raise UserError(f"{folder} has no HR image for {shorten(only_lr)}: add or remove the images")
    hr, lr = {name: files[name] for name in names}, _of_scale(lr, scale)
    if is_marked:
        hr = _of_scale(hr, scale)  # without a mark, x2 at the end of a name is part of it
    pairs = _match(hr, lr, scale, str(folder), str(folder)) if hr and lr else [Source("", f) for f in hr.values()]
    return [pair._replace(name=names[pair.hr.name]) for pair in pairs]


def pairs_side_by_side(folder: pathlib.Path, scale: int) -> list[Source]:
    """Finds pairs in a folder that may as well contain photographs.

    Args:
      folder: contains the images.
      scale: the scale of the pairs.

    Returns:
      The pairs; empty unless an LR image is marked as that of another image (`a_LR.png` beside `a_HR.png` or `a.png`),
      or every image has a counterpart (`ax4.png` beside `a.png`).

    Raises:
      UserError: some images have no counterpart, although others are marked.
    """
    parsed = [_parse(name) for name in image_files(folder)]
    others = {p.base.lower() for p in parsed if p.kind != "lr"}
    if any(p.kind == "lr" and p.base.lower() in others for p in parsed):
        return pairs_in_one_folder(folder, scale)
    try:
        pairs = pairs_in_one_folder(folder, scale)
    except UserError:
        return []
    return pairs if all(pair.lr for pair in pairs) else []


def is_lr_folder(name: str) -> bool:
    """Returns whether the name of a folder says that it contains LR images, such as `LR_bicubic`."""
    return bool(_LR_FOLDER.search(name.lower()))


def lr_and_hr_folders(folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], dict[str, pathlib.Path]]:
    """Finds the folders of LR and of HR images directly in a folder, and the folders per scale inside them.

    Args:
      folder: for example the folder of a benchmark set.

    Returns:
      The folders that contain images, by their paths relative to `folder`, LR and HR.
    """
    lr: dict[str, pathlib.Path] = {}
    hr: dict[str, pathlib.Path] = {}
    for child in sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")):
        name = child.name.lower()
        is_hr = bool(_HR_FOLDER.search(name)) and not is_lr_folder(name)
        if not (is_hr or is_lr_folder(name) or _SCALE_FOLDER.fullmatch(name)):
            continue
        inside = [f for f in sorted(child.rglob("*")) if f.is_dir() and not f.name.startswith(".")]
        for place in (child, *inside):
            if image_files(place):
                (hr if is_hr else lr)[place.relative_to(folder).as_posix()] = place
    return lr, hr


def _scale_of(path: str) -> int | None:
    found = _SCALE.findall(path.lower())
    return int(found[-1]) if found else None


def _only(places: dict[str, pathlib.Path], kind: str, folder: pathlib.Path) -> pathlib.Path | None:
    if len(places) > 1:
        raise UserError(f"{folder} has several folders of {kind} images, {shorten(list(places))}: keep one of them")
    return next(iter(places.values()), None)


def _preferred(places: dict[str, pathlib.Path], scale: int) -> dict[str, pathlib.Path]:
    """Returns the folders for a scale, or else those for any scale."""
    return {p: f for p, f in places.items() if _scale_of(p) == scale} or {
        p: f for p, f in places.items() if _scale_of(p) is None
    }


def pairs_in_folders(folder: pathlib.Path, scale: int, *, flat: bool = False) -> list[Source]:
    """Finds the pairs in a folder that has HR and possibly LR images in folders of their own.

    Recognized are the layouts of the EDSR benchmark (`HR`, `LR_bicubic/X4`), of BasicSR (`GTmod12` or `original`,
    `LRbicx4`), and similar ones such as `HR` and `x4`, `GT` and `LR`, `Flickr2K_HR` and `Flickr2K_LR_bicubic/X4`, in
    upper or lower case. Without LR images for this scale, LR is computed from HR.

    Args:
      folder: contains the folders.
      scale: the scale of the pairs.
      flat: whether the HR images may also be directly in `folder`.

    Returns:
      The pairs; empty without HR images.

    Raises:
      UserError: several folders qualify, LR or HR images have no counterpart, or two files have the same name.
    """
    lr_folders, hr_folders = lr_and_hr_folders(folder)
    hr_folders = _preferred(hr_folders, scale)
    # HR that was cropped to a multiple of 12 has exactly the area of LR; `original` may be larger.
    for preferred in ("mod", "hr", "gt"):
        if len(hr_folders) > 1:
            hr_folders = {p: f for p, f in hr_folders.items() if preferred in p.lower()} or hr_folders
    hr_folder = _only(hr_folders, "HR", folder)
    if hr_folder is None:
        if not flat:
            return []
        if not lr_folders:
            return pairs_in_one_folder(folder, scale)
        hr_folder = folder
    lr_folders = _preferred(lr_folders, scale)
    if len(lr_folders) > 1:
        lr_folders = {p: f for p, f in lr_folders.items() if "bic" in p.lower()} or lr_folders
    lr_folder = _only(lr_folders, f"×{scale} LR", folder)
    hr = image_files(hr_folder)
    lr = image_files(lr_folder) if lr_folder else {}
    if lr_folder and _scale_of(lr_folder.relative_to(folder).as_posix()) is None:
        lr = _of_scale(lr, scale, hr)  # of images for several scales in one folder
    if not lr:
        return [Source(stem(name), file) for name, file in hr.items()]
    return _match(hr, lr, scale, str(hr_folder), str(lr_folder))


def _marked(files: dict[str, AnyPath], kinds: tuple[str, ...]) -> dict[str, AnyPath]:
    """Returns the files that are marked in their names as one of some kinds, or else those without a mark."""
    kind = {name: _parse(name).kind for name in files}
    chosen = {name: file for name, file in files.items() if kind[name] in kinds}
    return chosen or {name: file for name, file in files.items() if kind[name] is None}


def _of_scale_in(
    folder: pathlib.Path, scale: int, kind: str, kinds: tuple[str, ...], hr: Iterable[str] = ()
) -> tuple[str, dict[str, AnyPath]]:
    """Returns the path and the images of the folder for a scale inside a folder, or else those of the folder itself."""
    inside = [f for f in sorted(folder.rglob("*")) if f.is_dir() and not f.name.startswith(".") and image_files(f)]
    own = {f.relative_to(folder).as_posix(): f for f in inside if _scale_of(f.relative_to(folder).as_posix()) == scale}
    place = _only(own, f"×{scale} {kind}", folder) or folder
    found = image_files(place)
    files = _marked(found, kinds)
    if place == folder:  # names end in a scale if they are marked, or if LR images for several scales are together
        unmarked = [name for name in files if _parse(name).kind is None] if kind == "HR" else hr
        files = _of_scale(files, scale, unmarked)
    if not files:
        contents = shorten(list(found) or [f.relative_to(folder).as_posix() for f in inside], most=3) or "nothing"
        raise UserError(
            f"{folder} has no {kind} images for ×{scale} (found {contents}): pass the folder that contains them",
            parameter="source" if kind == "HR" else "lr_source",
        )
    return str(place), files


def pairs_in_two_folders(hr_folder: pathlib.Path, lr_folder: pathlib.Path, scale: int) -> list[Source]:
    """Finds the pairs whose HR and LR images are in two given folders, which may be the same.

    The images are matched by name, as in the published layouts: `0801x4.png`, `0801.png`, `0801_LR.png` and similar
    names belong to `0801.png`, and `img_001_SRF_4_LR.png` belongs to `img_001_SRF_4_HR.png`. A folder may instead
    contain one for the scale, such as `X4`. Where some images are marked as HR or LR in their names, the others are
    ignored.

    Args:
      hr_folder: contains the HR images.
      lr_folder: contains the LR images.
      scale: the scale of the pairs.

    Returns:
      The pairs.

    Raises:
      UserError: a folder has no images for this scale, several folders qualify, or images have no counterpart.
    """
    if hr_folder == lr_folder:
        pairs = pairs_in_one_folder(hr_folder, scale)
        if not all(pair.lr for pair in pairs):
            raise UserError(f"{lr_folder} has no LR images for ×{scale}: pass their folder", parameter="lr_source")
        return pairs
    hr_place, hr = _of_scale_in(hr_folder, scale, "HR", ("hr", "gt"))
    lr_place, lr = _of_scale_in(lr_folder, scale, "LR", ("lr",), hr)
    pairs = _match(hr, lr, scale, hr_place, lr_place)
    parsed = [_parse(pair.hr.name) for pair in pairs]
    return [pair._replace(name=p.base) if p.kind else pair for pair, p in zip(pairs, parsed, strict=True)]
