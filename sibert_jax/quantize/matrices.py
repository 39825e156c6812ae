"""Finds the leaves of a model that are weight matrices or embedding tables, and groups them.

Names are those of interop/per_layer: one layer at a time, whether or not the model scans over
layers.
"""

from collections.abc import Mapping

import numpy as np

from sibert_jax.errors import ConfigError
from sibert_jax.interop.quantized import Form
from sibert_jax.quantize.settings import Settings

TABLES = ("token", "position", "segment", "output")  # (rows, D), used row by row


def forms(flat: Mapping[str, np.ndarray], settings: Settings) -> dict[str, Form]:
    """Returns the form of each leaf to quantize, without gains, biases and the like.

    Raises:
      ConfigError: a group does not divide the inputs of a leaf.
    """
    found = {}
    for name, leaf in flat.items():
        bits = settings.tables if is_table(name) else settings.bits
        inputs = input_axes(name, np.ndim(leaf))
        if not inputs or not bits:
            continue
        shape = tuple(np.shape(leaf))
        width = int(np.prod([shape[axis] for axis in inputs]))
        group = width if settings.group == -1 else settings.group
        if width % group:
            raise ConfigError(
                f"--group={group} does not divide the {width} inputs of {name}; give a divisor, "
                "or -1 for one group per output."
            )
        found[name] = Form(shape, inputs, bits, group, settings.symmetric)
    return found


def is_table(name: str) -> bool:
    """Tells whether a leaf is an embedding table."""
    return name.rpartition("/")[2] in TABLES


def input_axes(name: str, ndim: int) -> tuple[int, ...]:
    """The axes that a product sums over; (): the leaf is not a matrix.

    Example:
      >>> input_axes("encoder/layers/0/attention/out/kernel", 3)  # H, K, D
      (0, 1)
      >>> input_axes("encoder/embed/token", 2), input_axes("encoder/layers/0/ffn/up/bias", 1)
      ((1,), ())
    """
    *_, module, leaf = ("", *name.split("/"))
    if leaf == "kernel":
        return (0, 1) if ndim == 3 and module == "out" else (0,)
    return (1,) if ndim == 2 and (leaf == "rows" or is_table(name)) else ()


def block_of(name: str) -> str:
    """Returns the module that a matrix is tuned with: a layer, or a part of the stem or head.

    Example:
      >>> block_of("encoder/layers/0/ffn/up/kernel"), block_of("head/pooler/dense/kernel")
      ('encoder/layers/0', 'head/pooler')
    """
    parts = name.split("/")
    return "/".join(parts[: 3 if parts[1] == "layers" else 2])
