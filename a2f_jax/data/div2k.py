"""DIV2K: the official archives, and the images in them."""

import hashlib
import http.client
import os
import pathlib
import urllib.request
import zipfile
from typing import NamedTuple

from a2f_jax.data.sources import AnyPath, Source, Splits, image_files, stem
from a2f_jax.errors import UserError, shorten
from a2f_jax.files import locked, require_space
from a2f_jax.progress import progress_bar

_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"


class _Archive(NamedTuple):
    size: int
    sha256: str


# As tensorflow-datasets lists them.
_ARCHIVES = {
    "DIV2K_train_HR.zip": _Archive(3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
    "DIV2K_train_LR_bicubic_X2.zip": _Archive(
        925390592, "a53a424317575838dadce4bcd97cf7b744d6855f43740ed5f0245af3cf4bd850"
    ),
    "DIV2K_train_LR_bicubic_X3.zip": _Archive(
        427847282, "ad5c8e5507e2765823d3c2c5bd0934842efcd487c5370604c224090898b3163a"
    ),
    "DIV2K_train_LR_bicubic_X4.zip": _Archive(
        246914039, "f006b837f4eb52b82909aa01478e6d6d199eefce932179491d0c9dbb706dde3a"
    ),
    "DIV2K_valid_HR.zip": _Archive(448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
    "DIV2K_valid_LR_bicubic_X2.zip": _Archive(
        117763600, "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57"
    ),
    "DIV2K_valid_LR_bicubic_X3.zip": _Archive(
        54513392, "04b9a2ed3b4a0715d3924d3ae8514830c3328fac8d30512ce716d6f419e052a3"
    ),
    "DIV2K_valid_LR_bicubic_X4.zip": _Archive(
        31505881, "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553"
    ),
}


def _fetch(url: str, partial: pathlib.Path, size: int, progress: bool) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    if there >= size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            there = 0
        offered = response.headers["Content-Length"]
        if response.headers.get_content_type() == "text/html":
            raise OSError("the server sent a web page instead of the archive")
        if offered and there + int(offered) != size:
            raise OSError(f"the server offers {there + int(offered)} bytes instead of {size}")
        bar = progress_bar(total=size, unit="byte", description=partial.stem, visible=progress, unit_scale=True)
        with bar, partial.open("ab" if there else "wb") as out:
            bar.update(there)
            while block := response.read(1 << 20):
                out.write(block)
                bar.update(len(block))


def _download(url: str, file: pathlib.Path, published: _Archive, progress: bool) -> None:
    partial = file.with_name(f"{file.name}.partial")
    _fetch(url, partial, published.size, progress)
    size = partial.stat().st_size
    if size < published.size:
        raise OSError(f"the connection was lost after {size} of {published.size} bytes; run again to resume")
    with partial.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != published.sha256:
        partial.unlink()
        raise OSError(f"{file.name} was damaged in transfer, or has changed on the server")
    os.replace(partial, file)


def download_div2k(scale: int, folder: pathlib.Path, *, progress: bool = True) -> None:
    """Downloads the official archives for a scale, unless they are there already.

    An interrupted download is resumed. Each archive is checked against its published SHA-256.

    Args:
      scale: the scale of the pairs.
      folder: where to store the archives.
      progress: whether to show progress bars.

    Raises:
      UserError: a download fails, or the disk is too small for the archives.
    """
    names = [f"DIV2K_{part}_{kind}.zip" for part in ("train", "valid") for kind in ("HR", f"LR_bicubic_X{scale}")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "download.lock"):
            missing = []
            for name in names:
                file = folder / name
                # A file of the published size was checked when it was downloaded. Anything else is not the archive.
                if file.exists() and file.stat().st_size != _ARCHIVES[name].size:
                    file.unlink()
                if not file.exists():
                    missing.append(name)
            partial = sum(file.stat().st_size for file in folder.glob("*.partial"))
            require_space(
                folder,
                sum(_ARCHIVES[name].size for name in missing) - partial,
                "downloading DIV2K",
                remedy="free some space or choose another folder",
                parameter="data_dir",
            )
            for name in missing:
                _download(_URL + name, folder / name, _ARCHIVES[name], progress)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"cannot download DIV2K from {_URL} to {folder} ({error}): try again later, or download "
            f"{', '.join(names)} yourself and pass their folder",
            parameter="source",
        ) from error


def _part(folder: pathlib.Path, name: str) -> AnyPath | None:
    if (folder / name).is_dir():
        return folder / name
    archive = folder / f"{name}.zip"
    if not archive.is_file():
        return None
    try:
        return zipfile.Path(archive)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is not a complete zip archive: download it again") from error


def _descend(folder: AnyPath, *names: str) -> AnyPath:
    # Archives, and the tools that extract them, add or drop levels.
    for name in names:
        inside = folder / name
        if inside.is_dir():
            folder = inside
    return folder


def find_div2k(folder: pathlib.Path, scale: int) -> Splits:
    """Finds DIV2K in a folder with the official zip archives, or the folders extracted from them.

    Args:
      folder: contains `DIV2K_train_HR`, `DIV2K_train_LR_bicubic_X4`, `DIV2K_valid_HR` and `DIV2K_valid_LR_bicubic_X4`
        (for scale 4), each a folder or a `.zip` file.
      scale: the scale of the pairs.

    Returns:
      The splits `train` and `validation`.

    Raises:
      UserError: a folder, an archive or an image is missing.
    """
    splits: Splits = {}
    for split, part in (("train", "train"), ("validation", "valid")):
        hr_name = f"DIV2K_{part}_HR"
        lr_names = (f"DIV2K_{part}_LR_bicubic_X{scale}", f"DIV2K_{part}_LR_bicubic")
        hr = _part(folder, hr_name)
        lr = next((p for p in (_part(folder, n) for n in lr_names) if p is not None), None)
        for needed, there in ((hr_name, hr), (lr_names[0], lr)):
            if there is None:
                raise UserError(f"{folder} does not contain DIV2K: it has neither {needed}/ nor {needed}.zip")
        assert hr is not None and lr is not None
        hr_files = {stem(name): file for name, file in image_files(_descend(hr, hr_name)).items()}
        lr_files = {
            stem(name).removesuffix(f"x{scale}"): file
            for name, file in image_files(_descend(lr, *lr_names[::-1], f"X{scale}")).items()
        }
        for place, mine, other, others in ((hr, hr_files, lr, lr_files), (lr, lr_files, hr, hr_files)):
            if missing := sorted(set(others) - set(mine)):
                raise UserError(f"{place} has no image for {shorten(missing)} in {other}: download {place} again")
        if not hr_files:
            raise UserError(f"{hr} has no images: download it again")
        splits[split] = [Source(name, file, lr_files[name]) for name, file in hr_files.items()]
    return splits
