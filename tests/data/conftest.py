"""Image folders in the layouts of the published datasets, and a decoded dataset in memory."""

import contextlib
import zipfile

import numpy as np
import pytest

from a2f_jax.data import Cache, matlab_bicubic
from a2f_jax.images import write_rgb


@pytest.fixture
def picture():
    """Returns a function `picture(seed, height=24, width=36)` that makes random pixels."""

    def make(seed, height=24, width=36):
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture
def photos(tmp_path, picture):
    """A folder with ten photographs of different sizes, `0.png` to `9.png`."""
    folder = tmp_path / "photos"
    for i in range(10):
        write_rgb(folder / f"{i}.png", picture(i, 24 + i, 40 - i))
    return folder


@pytest.fixture
def div2k(tmp_path, picture):
    """Returns a function `div2k(packed)` that makes a DIV2K of three images, as zip archives or extracted.

    LR is inverted, so that it differs from LR that is computed from HR.
    """

    def make(packed):
        folder = tmp_path / ("archives" if packed else "extracted")
        folder.mkdir()
        for part, numbers in (("train", (1, 2)), ("valid", (801,))):
            images = {}
            for i in numbers:
                hr = picture(i)
                images[f"DIV2K_{part}_HR.zip", f"DIV2K_{part}_HR/{i:04}.png"] = hr
                for scale in (2, 4):
                    name = f"DIV2K_{part}_LR_bicubic/X{scale}/{i:04}x{scale}.png"
                    images[f"DIV2K_{part}_LR_bicubic_X{scale}.zip", name] = 255 - matlab_bicubic(hr, 1 / scale)
            for (archive, name), pixels in images.items():
                if packed:
                    write_rgb(tmp_path / "image.png", pixels)
                    with zipfile.ZipFile(folder / archive, "a") as packing:
                        packing.write(tmp_path / "image.png", name)
                else:
                    write_rgb(folder / name, pixels)
        return folder

    return make


def _chunks(images):
    """Lays out images like the cache: rows of whole chunks of 128 bytes."""
    rows, starts = [], []
    for image in images:
        starts.append(sum(map(len, rows)))
        height, width, _ = image.shape
        padded = np.pad(image.reshape(height, 3 * width), ((0, 0), (0, -3 * width % 128)))
        rows.append(padded.reshape(-1, 128))
    return np.concatenate(rows), np.array(starts, np.int32)


@pytest.fixture(scope="session")
def images():
    """LR and HR of three random ×2 pairs; the LR of the first has the size of the patches that tests crop, 16×16."""
    rng = np.random.default_rng(0)
    sizes = [(16, 16), (20, 64), (50, 43)]
    return [[rng.integers(0, 256, (s * h, s * w, 3), dtype=np.uint8) for s in (1, 2)] for h, w in sizes]


@pytest.fixture(scope="session")
def cache(images):
    (lr, lr_start), (hr, hr_start) = (_chunks([pair[k] for pair in images]) for k in (0, 1))
    sizes = np.array([pair[0].shape[:2] for pair in images], np.int32)
    return Cache(2, ["a", "b", "c"], sizes, lr, hr, lr_start, hr_start)


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def assert_same():
    """Returns a function `assert_same(pairs, sources, scale)` that compares prepared pairs with their sources."""

    def compare(pairs, sources, scale):
        assert len(pairs) == len(sources)
        for pair, source in zip(pairs, sources, strict=True):
            want = source.read(scale)
            assert pair.name == want.name
            np.testing.assert_array_equal(pair.lr, want.lr)
            np.testing.assert_array_equal(pair.hr, want.hr)

    return compare


@pytest.fixture
def tfds_div2k(tmp_path, picture):
    """A DIV2K of three images as tensorflow-datasets' own builder prepares it, in `div2k/bicubic_x4/2.0.0`."""
    import tensorflow_datasets as tfds

    class Div2k(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="bicubic_x4", description="Uses bicubic_x4 data.")]  # noqa: RUF012

        def _info(self):
            features = tfds.features.FeaturesDict({"lr": tfds.features.Image(), "hr": tfds.features.Image()})
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("lr", "hr"))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples((1, 2)), "validation": self._generate_examples((801,))}

        def _generate_examples(self, numbers):
            for i in numbers:
                files = {"lr": tmp_path / f"{i:04}x4.png", "hr": tmp_path / f"{i:04}.png"}
                write_rgb(files["lr"], 255 - matlab_bicubic(picture(i), 1 / 4))
                write_rgb(files["hr"], picture(i))
                yield f"{i:04}x4.png", files

    Div2k.name = "div2k"
    root = tmp_path / "tensorflow_datasets"
    with contextlib.redirect_stdout(None):
        Div2k(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root
