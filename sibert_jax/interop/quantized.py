"""Matrices as packed integers with a scale and a zero point per group, in safetensors files.

Notation: O outputs, G groups per output, J inputs per group.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from sibert_jax.errors import InteropError
from sibert_jax.files import share
from sibert_jax.interop.tensor_files import as_float32, read_safetensors

KEY = "quantized"  # metadata key: the form of each quantized tensor, as JSON


class Form(NamedTuple):
    """How a matrix is quantized.

    Attributes:
      shape: the tensor's shape.
      inputs: the axes that the product sums over, in order; the others are outputs.
      bits: bits per integer, 1 to 8.
      group: J, consecutive inputs that share a scale and zero point; divides the number of inputs.
      symmetric: whether the zero point is 2^(bits − 1) everywhere and not stored.
    """

    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    bits: int
    group: int
    symmetric: bool

    @property
    def grouped_shape(self) -> tuple[int, int, int]:
        """(O, G, J)."""
        outputs = int(np.prod([self.shape[axis] for axis in self._outputs]))
        inputs = int(np.prod([self.shape[axis] for axis in self.inputs]))
        return outputs, inputs // self.group, self.group

    def grouped(self, x: Any) -> Any:
        """Rearranges a tensor (a numpy or JAX array) to (O, G, J)."""
        return x.transpose(self._order).reshape(self.grouped_shape)

    def ungrouped(self, x_OGJ: Any) -> Any:
        """Undoes `grouped`."""
        moved = tuple(self.shape[axis] for axis in self._order)
        return x_OGJ.reshape(moved).transpose(np.argsort(self._order).tolist())

    @property
    def _outputs(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.inputs)

    @property
    def _order(self) -> tuple[int, ...]:
        return self._outputs + self.inputs


@dataclasses.dataclass(frozen=True, eq=False)
class Quantized:
    """A matrix: scale · (code − zero).

    Attributes:
      form: shape, bits and groups.
      codes_OGJ: uint8, below 2^bits.
      scale_OG: float32.
      zero_OG: uint8, below 2^bits.
    """

    form: Form
    codes_OGJ: np.ndarray
    scale_OG: np.ndarray
    zero_OG: np.ndarray

    def float32(self) -> np.ndarray:
        """Returns the dequantized tensor in its original shape."""
        centered = self.codes_OGJ.astype(np.float32) - self.zero_OG[..., None].astype(np.float32)
        return np.ascontiguousarray(self.form.ungrouped(self.scale_OG[..., None] * centered))

    @property
    def nbytes(self) -> int:
        """Size in a file in bytes."""
        return sum(part.nbytes for part in self.parts().values())

    def parts(self) -> dict[str, np.ndarray]:
        """Returns the stored arrays: packed "codes" and "zero", and "scale"."""
        found = {"codes": pack(self.codes_OGJ, self.form.bits), "scale": self.scale_OG}
        return (
            found if self.form.symmetric else found | {"zero": pack(self.zero_OG, self.form.bits)}
        )

    @classmethod
    def of_parts(cls, form: Form, parts: Mapping[str, np.ndarray]) -> "Quantized":
        """Undoes `parts`."""
        shape = form.grouped_shape
        codes = unpack(parts["codes"], form.bits, shape)
        if form.symmetric:
            zero = np.full(shape[:2], 1 << (form.bits - 1), np.uint8)
        else:
            zero = unpack(parts["zero"], form.bits, shape[:2])
        return cls(form, codes, parts["scale"].reshape(shape[:2]), zero)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Packs integers below 2^bits into bytes without gaps, lowest bit of the first integer first.

    Args:
      codes: uint8, any shape.
      bits: 1 to 8.

    Example:
      >>> pack(np.array([1, 2, 3, 0, 7], np.uint8), 3).tolist()  # 15 bits
      [209, 112]
    """
    bits_NW = np.unpackbits(codes.reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(bits_NW, bitorder="little")


def unpack(packed: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Undoes `pack`: returns uint8 of a shape; raises ValueError on a wrong number of bytes.

    Example:
      >>> unpack(np.array([209, 112], np.uint8), 3, (5,)).tolist()
      [1, 2, 3, 0, 7]
    """
    count = int(np.prod(shape))
    if packed.size != -(-count * bits // 8):
        raise ValueError(f"{packed.size} bytes for {count} integers of {bits} bits")
    bits_NW = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(bits_NW, axis=1, bitorder="little").reshape(shape)


def write(path: pathlib.Path, tensors: Mapping[str, Quantized | np.ndarray]) -> None:
    """Writes one file; a `Quantized` NAME becomes NAME.codes, NAME.scale and NAME.zero."""
    arrays, forms = {}, {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Quantized):
            forms[name] = tensor.form._asdict()
            arrays |= {f"{name}.{part}": array for part, array in tensor.parts().items()}
        else:
            arrays[name] = np.ascontiguousarray(tensor)
    metadata = {"format": "pt", KEY: json.dumps(forms)}
    safetensors_numpy.save_file(arrays, path, metadata=metadata)
    share(path)


def read(path: pathlib.Path) -> dict[str, Quantized | np.ndarray]:
    """Reads a file of `write`; from any other file, its tensors as float32.

    Raises:
      InteropError: the file is missing or broken, or a part of a tensor is missing.
    """
    arrays = read_safetensors(path)
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    found: dict[str, Quantized | np.ndarray] = {}
    try:
        for name, values in json.loads(metadata.get(KEY, "{}")).items():
            lists = {key: tuple(values[key]) for key in ("shape", "inputs")}
            form = Form(**values | lists)
            names = ("codes", "scale") if form.symmetric else ("codes", "scale", "zero")
            parts = {part: arrays.pop(f"{name}.{part}") for part in names}
            found[name] = Quantized.of_parts(form, parts)
    except (KeyError, TypeError, ValueError) as error:
        raise InteropError(
            f"{path}: a quantized tensor lacks a part or is of another size ({error}); write the "
            "directory again."
        ) from None
    return found | {name: as_float32(array, name, path) for name, array in arrays.items()}


def dequantized(tensors: Mapping[str, Quantized | np.ndarray]) -> dict[str, np.ndarray]:
    """Returns all tensors in float32."""
    return {k: x.float32() if isinstance(x, Quantized) else x for k, x in tensors.items()}
