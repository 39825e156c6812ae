"""Package metadata and extras; tool settings live in pyproject.toml."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "sibert_jax/__init__.py").read_text())[1]

# `sibert_jax.optim` and `sibert_jax.homogeneity` need nothing but the core.
CORE = ["jax>=0.10.2,<0.13", "optax>=0.2.8,<0.3", "numpy>=2.2"]
TRAIN = [
    "absl-py>=2.1",
    "clu>=0.0.12",
    "flax>=0.12.8,<0.13",
    "matplotlib>=3.9",
    "ml_collections>=1.1.0",
    "orbax-checkpoint>=0.12.8,<0.13",
    "safetensors>=0.5,<1",
    "tensorboardX>=2.6.5",
    "tokenizers>=0.23,<0.24",
    "tqdm>=4.66",
    "wrapt>=1.16",  # clu.metrics imports it without declaring it
]
TFDS = ["tensorflow-datasets>=4.9.10", "array_record>=0.8.1", "importlib_resources"]
TF = ["tensorflow-cpu>=2.21"]
DEV = [
    "build>=1.3",
    "equinox>=0.13",
    "hypothesis>=6.150",
    "ipykernel>=7",
    "nbclient>=0.11",
    "pytest>=9",
    "pytest-xdist>=3.8",
    "ruff==0.17.6",
    "scikit-learn>=1.7,<2",  # experiments/glue
    "setuptools>=77",  # builds the wheel in the tests
    "twine>=6",
]
DOCS = [
    "latex2mathml>=3.77,<4",
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.7,<10",
    "mkdocstrings[python]>=1,<2",
]

setuptools.setup(
    name="sibert_jax",
    version=VERSION,
    description="Robust transformer training without an adaptive optimizer, in JAX",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="jax optax transformers sgd weight-decay scale-invariance bert",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["sibert_jax", "sibert_jax.*"]),
    package_data={"sibert_jax": ["py.typed", "interop/*.txt"]},
    entry_points={"console_scripts": ["sibert_jax = sibert_jax.__main__:main"]},
    install_requires=CORE,
    extras_require={
        "train": TRAIN,
        "tfds": TRAIN + TFDS,
        "tf": TRAIN + TFDS + TF,
        "dev": TRAIN + TFDS + DEV,
        "docs": DOCS,
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Typing :: Typed",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
