"""Quantized matrices in a parameter tree: packed in memory, dequantized on use.

Notation: interop/quantized.py.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax.core.meta import AxisMetadata

from sibert_jax.interop.quantized import Form, Quantized


@jax.tree_util.register_pytree_with_keys_class
class Packed(AxisMetadata):
    """A Flax box around one matrix, or around the stacked matrices of a scan over layers.

    `module.apply` unboxes a parameter when a module requests it, inside the body of a scan: only
    one layer at a time is dequantized.

    Attributes:
      form: the form of one layer's matrix.
      parts: "codes", "scale" and "zero" as in `Quantized.parts`; stacked for a scan.

    Example::

      params = unflatten(pack_all(tensors), scan_layers=cfg.scan_layers)
      x_BLD, _ = Encoder(cfg).apply({"params": params["encoder"]}, *arrays)
    """

    def __init__(self, form: Form, parts: dict[str, Any]):
        self.form, self.parts = form, parts

    def unbox(self) -> jax.Array:
        """Returns the matrix in float32."""
        form, parts = self.form, self.parts
        shape_OGJ = form.grouped_shape
        zero_OG1 = 2.0 ** (form.bits - 1)
        if not form.symmetric:
            zero_OG1 = _unpack(parts["zero"], form.bits, (*shape_OGJ[:2], 1))
        codes_OGJ = _unpack(parts["codes"], form.bits, shape_OGJ)
        scale_OG1 = parts["scale"].reshape(*shape_OGJ[:2], 1)
        return form.ungrouped(scale_OG1 * (codes_OGJ - zero_OG1))

    @property
    def size(self) -> int:
        """The number of entries of the matrix, or of all stacked ones."""
        return math.prod((*self.parts["codes"].shape[:-1], *self.form.shape))

    def replace_boxed(self, val: Any) -> Any:
        """Returns the value itself: floats are not packed again."""
        return val

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Packed":
        """Returns the box itself: when stacked by a scan, the form stays that of one layer."""
        del index, params
        return self

    remove_axis = add_axis

    def tree_flatten_with_keys(self):
        names = tuple(sorted(self.parts))
        leaves = [(jax.tree_util.DictKey(name), self.parts[name]) for name in names]
        return leaves, (self.form, names)

    @classmethod
    def tree_unflatten(cls, fixed, leaves) -> "Packed":
        form, names = fixed
        return cls(form, dict(zip(names, leaves)))


def pack_all(tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors by name, with each `Quantized` one as a `Packed`."""
    return {
        name: Packed(x.form, x.parts()) if isinstance(x, Quantized) else x
        for name, x in tensors.items()
    }


def _unpack(bytes_N: jax.Array, bits: int, shape: tuple[int, ...]) -> jax.Array:
    """`quantized.unpack` in JAX, as float32."""
    if bits == 8:
        return bytes_N.reshape(shape).astype(jnp.float32)
    count = math.prod(shape)
    bits_MW = jnp.unpackbits(bytes_N, count=count * bits, bitorder="little").reshape(count, bits)
    power_1W = 1 << jnp.arange(bits, dtype=jnp.uint8)[None]
    return (bits_MW * power_1W).sum(axis=1, dtype=jnp.uint8).reshape(shape).astype(jnp.float32)
