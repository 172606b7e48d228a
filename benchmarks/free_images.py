"""Collects the photographs and drawings with free licenses that some of the weights were trained on.

    (mkdir debs && cd debs && apt download gcompris-qt-data gnome-backgrounds ...)
    pip install pillow-jxl-plugin
    python benchmarks/free_images.py debs/ -o free-images/ --held-out wallpapers/

They come from packages of Debian and of Ubuntu, which are unpacked with dpkg-deb. Packages that are missing are listed;
Debian's archive of snapshots has versions that are no longer distributed. Each image is reduced by a factor of at least
2, which also reduces the artifacts of its compression. Images that resemble an earlier one, and almost empty ones, are
left out.
"""

import argparse
import fnmatch
import functools
import io
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import tqdm
from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # wallpapers are large

# Packages → the images to take, of at least `SMALLEST_FILE` bytes. License: CC0, CC BY, or CC BY-SA; jquery: Expat.
WALLPAPERS = {
    "gnome-backgrounds_43.1-1_all.deb": "*.webp",
    "lomiri-wallpapers-16.04_20.04.0-2_all.deb": "*.jpg",
    "lomiri-wallpapers-20.04_20.04.0-2_all.deb": "*.jpg",
    "ukui-wallpapers_20.04.3-1.1_all.deb": "*.[jp][pn]g",
    "budgie-backgrounds_4.2-1_all.deb": "*.jxl",
    "gnome-backgrounds_51.0.1-1_all.deb": "*-l.jxl",
    "ukui-wallpapers_20.04.4-1_all.deb": "*.[jp][pn]g",
    "libjs-jquery-backstretch_2.1.17-4_all.deb": "*.jpg",
}
# The same for Ubuntu, for all releases that have wallpapers. License: mostly CC0, CC BY, or CC BY-SA; some have
# Unsplash's.
UBUNTU = (
    "ubuntu-wallpapers-*_25.10.2_all.deb",
    "ubuntu-gnome-wallpapers-*_16.10.4_all.deb",
    "ubuntu-mate-wallpapers-*_24.10.0_all.deb",
    "ubuntucinnamon-wallpapers-*_25.10_all.deb",
    "ubuntukylin-wallpapers-*_25.04_all.deb",
    "ubuntustudio-wallpapers-*_25.10.3_all.deb",
    "xubuntu-community-wallpapers-*_22.04.0_all.deb",
    "budgie-wallpapers-*_25.04_all.deb",
    "edubuntu-wallpapers*_25.10.5_all.deb",
)
# More wallpapers, none of which are held out. License: mostly CC BY-SA, CC0, Unsplash's, or public domain; those of
# KDE and MATE: mostly LGPL, GPL, or CC BY-SA.
MORE_WALLPAPERS = (
    "gnome-backgrounds_3.18.0-1_all.deb",
    "gnome-backgrounds_3.28.0-1_all.deb",
    "gnome-backgrounds_3.36.0-1_all.deb",
    "gnome-backgrounds_3.38.0-1_all.deb",
    "gnome-backgrounds_42.0-1_all.deb",
    "gnome-backgrounds_45.0-1_all.deb",
    "gnome-backgrounds_48.2.1-1_all.deb",
    "budgie-wallpapers-resolute_26.04.1_all.deb",
    "edubuntu-wallpapers_26.04.10_all.deb",
    "lubuntu-artwork_22.04.2_all.deb",
    "lubuntu-artwork_26.04.3_all.deb",
    "lubuntu-artwork-*_0.71_all.deb",
    "pysycache-puzzle-photos_3.1-3.3ubuntu1_all.deb",
    "ubuntu-unity-backgrounds_26.04-0ubuntu1_all.deb",
    "ubuntu-wallpapers-questing_26.04.2_all.deb",
    "ubuntu-wallpapers-resolute_26.04.2_all.deb",
    "ubuntucinnamon-wallpapers-resolute_26.04.2_all.deb",
    "ubuntukylin-wallpapers-questing_26.04_all.deb",
    "ubuntukylin-wallpapers-resolute_26.04_all.deb",
    "ubuntustudio-wallpapers-*_24.04.8_all.deb",
    "ubuntustudio-wallpapers-resolute_26.04.11_all.deb",
    "xubuntu-wallpapers-*_25.10_all.deb",
    "kde-wallpapers_15.08.2-0ubuntu1_all.deb",
    "kdeartwork-wallpapers_15.08.2-0ubuntu1_all.deb",
    "kubuntu-wallpapers-bionic_18.04.0_all.deb",
    "kubuntu-wallpapers-focal_20.04.1_all.deb",
    "kubuntu-wallpapers_24.04.2_all.deb",
    "mate-backgrounds_1.20.0-0ubuntu1_all.deb",
    "mate-backgrounds_1.28.0-1_all.deb",
    "plasma-workspace-wallpapers_5.5.5-0ubuntu1_all.deb",
    "plasma-workspace-wallpapers_5.27.5-2_all.deb",
    "plasma-workspace-wallpapers_6.7.4-1_all.deb",
)
SMALLEST_FILE = 60_000
SMALLEST_WALLPAPER = 480  # pixels

# Much of the wallpapers in packages of these two lists is sky, or plain.
LARGEST_WINDOW = 900
LEAST_DETAIL = 3.0
"""Mean difference between adjacent pixels of the luma, in gray levels."""

# GCompris, an educational program. Package → the smallest image to take in pixels, and the resources with photographs.
# License: mostly CC BY, CC BY-SA, CC0, or public domain; a few are under the GPL or the GFDL.
EDUCATION = {
    "gcompris-qt-data_3.1-2_all.deb": (
        400,
        ["clickgame", "details", "erase", "explore_farm_animals", "explore_monuments", "explore_world_*"],
    ),
    "gcompris-qt-data_26.2-1_all.deb": (
        300,
        ["categorization", "details", "erase", "explore_farm_animals", "explore_monuments", "explore_world_*"],
    ),
}
STARTS = re.compile(rb"\xff\xd8\xff[\xe0\xe1\xdb]|RIFF....WEBP|\x89PNG\r\n\x1a\n", re.DOTALL)
LARGEST_FILE = 8_000_000

HELD_OUT_EVERY = 24
"""One in so many images of Ubuntu is not trained on."""

THUMBNAIL = 24
SIMILAR = 0.93
"""Correlation of the thumbnails of two images of which one is left out."""


def wallpapers(folder: pathlib.Path, pattern: str) -> Iterator[Image.Image]:
    """Yields the reduced images of an unpacked package."""
    for file in sorted(folder.rglob(pattern)):
        if file.is_symlink() or file.stat().st_size < SMALLEST_FILE:
            continue
        image = Image.open(file)
        if min(image.size) < SMALLEST_WALLPAPER:
            continue
        if image.mode in ("RGBA", "LA", "P"):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image, side = image.convert("RGB"), max(image.size)
        if file.suffix == ".jxl":
            yield image.reduce(max(1, side // 2048)).reduce(2)
        else:
            image = image.reduce(2 if side <= 3000 else 3)
            yield image.crop((0, 0, min(1400, image.width), min(1400, image.height)))


def photographs(folder: pathlib.Path, smallest: int, resources: list[str]) -> Iterator[Image.Image]:
    """Yields the reduced images in Qt's resource files of an unpacked package, which are not compressed again."""
    for file in sorted(file for name in resources for file in folder.rglob(f"{name}.rcc")):
        content = file.read_bytes()
        for match in STARTS.finditer(content):
            try:
                image = Image.open(io.BytesIO(content[match.start() : match.start() + LARGEST_FILE]))
                image.load()
            except (OSError, SyntaxError):  # only bytes that look like the start of a file
                continue
            if min(image.size) >= smallest:
                yield image.convert("RGB").reduce(2)


def thumbnail(image: Image.Image) -> np.ndarray | None:
    """Returns a small grayscale copy with mean 0 and variance 1, or None if the image is almost empty."""
    small = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).convert("L"), np.float32)
    return None if small.std() < 4 else (small - small.mean()) / small.std()


def most_detailed(image: Image.Image) -> Image.Image | None:
    """Returns the window of at most 900x900 pixels with the most detail, or None if it has little."""
    luma = np.asarray(image.convert("L"), np.float32)
    detail = np.zeros((image.height + 1, image.width + 1))
    detail[1:-1, 1:-1] = (np.abs(np.diff(luma, axis=0))[:, 1:] + np.abs(np.diff(luma, axis=1))[1:]) / 2
    sums = detail.cumsum(0).cumsum(1)
    height, width = min(image.height, LARGEST_WINDOW), min(image.width, LARGEST_WINDOW)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(windows.argmax(), windows.shape)
    if windows[top, left] < LEAST_DETAIL * height * width:
        return None
    return image.crop((left, top, left + width, top + height))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=pathlib.Path, help="folder with the packages")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, help="folder to write, as PNG files")
    parser.add_argument(
        "--held-out", type=pathlib.Path, required=True, metavar="DIR", help="folder for images that are not trained on"
    )
    args = parser.parse_args()
    import pillow_jxl  # noqa: F401  # for JPEG XL; after the help, which says how to install it

    collectors: dict[str, Callable[[pathlib.Path], Iterator[Image.Image]]] = {}
    missing = []
    windows = dict.fromkeys(UBUNTU, "*.[jpw][pne]*") | dict.fromkeys(MORE_WALLPAPERS, "*.[jpw][pnex]*")
    for pattern, images in (WALLPAPERS | EDUCATION | windows).items():
        packages = sorted(file.name for file in args.packages.glob(pattern))
        if not packages:
            missing.append(pattern)
        for name in packages:
            if isinstance(images, str):
                collectors[name] = functools.partial(wallpapers, pattern=images)
            else:
                collectors[name] = functools.partial(photographs, smallest=images[0], resources=images[1])
    if missing:
        sys.exit(f"{args.packages} lacks {', '.join(missing)}")
    for folder in (args.output, args.held_out):
        if folder.exists():
            sys.exit(f"{folder} exists already: choose another folder")
    for folder in (args.output, args.held_out):
        folder.mkdir(parents=True)
    seen: list[np.ndarray] = []
    for name, collect in tqdm.tqdm(collectors.items(), unit="package"):
        ubuntu = any(fnmatch.fnmatch(name, pattern) for pattern in UBUNTU)
        windowed = any(fnmatch.fnmatch(name, pattern) for pattern in windows)
        with tempfile.TemporaryDirectory() as unpacked:
            subprocess.run(["dpkg-deb", "-x", args.packages / name, unpacked], check=True)
            for image in collect(pathlib.Path(unpacked)):
                window = most_detailed(image) if windowed else image
                small = thumbnail(image)
                if window is None or small is None or any((small * other).mean() > SIMILAR for other in seen):
                    continue
                seen.append(small)
                output = args.held_out if ubuntu and len(seen) % HELD_OUT_EVERY == 0 else args.output
                window.save(output / f"{name.partition('_')[0]}-{len(seen):03}.png")
    for folder in (args.output, args.held_out):
        print(f"{len(list(folder.iterdir()))} images in {folder}")


if __name__ == "__main__":
    main()
