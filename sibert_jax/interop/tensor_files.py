"""Reads and writes safetensors files: a single one, or several with an index."""

import pathlib
from collections.abc import Callable

import jax.numpy as jnp  # registers bfloat16 with numpy
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from sibert_jax.errors import InteropError
from sibert_jax.files import share
from sibert_jax.interop.config_json import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Other weight files, which only other programs can read.
OTHER_FORMATS = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
    "bert_model.ckpt.index",
)


def read_tensors(directory: pathlib.Path, architecture: str) -> dict[str, np.ndarray]:
    """Reads all tensors of a directory, by name.

    Args:
      directory: contains `model.safetensors`, or its parts and `model.safetensors.index.json`.
      architecture: the transformers class that loads it, for the hint on how to convert other
        files.

    Raises:
      InteropError: a file is missing, truncated or in another format.
    """
    if (directory / SINGLE).exists():
        return read_safetensors(directory / SINGLE)
    if (directory / INDEX).exists():
        return _read_parts(directory / INDEX)
    for name in OTHER_FORMATS:
        if (directory / name).exists():
            raise InteropError(
                f"{directory} has {name} and no {SINGLE}; convert it where PyTorch and "
                "transformers are installed: "
                f'python -c "from transformers import {architecture} as M; '
                f"M.from_pretrained('{directory}').save_pretrained('NEW')\" "
                "(and copy the files of the tokenizer)."
            )
    raise InteropError(f"{directory / SINGLE} is missing.")


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads all tensors of one file, by name."""
    try:
        return safetensors.load_file(path)
    except FileNotFoundError:
        raise InteropError(f"{path} is missing.") from None
    except (AttributeError, TypeError) as error:  # a type that numpy lacks, such as float8
        raise InteropError(f"{path} holds an unsupported dtype: {error}.") from None
    except (OSError, SafetensorError, ValueError) as error:
        if path.is_file() and path.stat().st_size < 1000 and b"git-lfs" in path.read_bytes():
            raise InteropError(f"{path} is a pointer of Git LFS; run `git lfs pull`.") from None
        raise InteropError(f"{path} is truncated or not a safetensors file: {error}.") from None


def as_float32(array: np.ndarray, name: str, path: pathlib.Path) -> np.ndarray:
    """Casts any float type to float32."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InteropError(f"{path}: {name} is {array.dtype}, expected a float type.")
    return array.astype(np.float32)


def renamed(
    tensors: dict[str, np.ndarray], rename: Callable[[str], str], directory: pathlib.Path
) -> dict[str, np.ndarray]:
    """Renames tensors; raises InteropError if two get the same name."""
    found: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        new = rename(name)
        if new in found:
            raise InteropError(f"{directory} has {new} twice, under different names.")
        found[new] = array
    return found


def dtype_notes(tensors: dict[str, np.ndarray]) -> list[str]:
    """Returns a sentence on weights in shorter float types, if there are any."""
    dtypes = {array.dtype for array in tensors.values() if array.dtype != np.float32}
    names = sorted(str(dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))
    return [f"weights of {', '.join(names)} are kept and exported as float32"] if names else []


def write_safetensors(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes one file, readable by any framework."""
    safetensors.save_file(tensors, path, metadata={"format": "pt"})
    share(path)


def in_dtype(tensors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Returns contiguous arrays rounded to "float32", "bfloat16" or "float16".

    Raises:
      InteropError: a value is too large for the dtype.
    """
    found = {}
    for name, array in tensors.items():
        with np.errstate(over="ignore"):
            found[name] = np.ascontiguousarray(array).astype(dtype, copy=False)
        if (np.isinf(found[name]) & np.isfinite(array)).any():
            raise InteropError(
                f"{name} holds {np.abs(array).max():.5g}, and {dtype} ends at "
                f"{float(jnp.finfo(dtype).max):.5g}; export with --dtype=bfloat16 or float32."
            )
    return found


def _read_parts(index: pathlib.Path) -> dict[str, np.ndarray]:
    values = read_json(index)
    places = values.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise InteropError(f"{index} has no weight_map from names of tensors to files.")
    tensors: dict[str, np.ndarray] = {}
    for name in sorted(set(places.values())):
        path = index.parent / name
        if path.parent != index.parent:
            raise InteropError(f"{index} names {name!r}, which is not in its directory.")
        if not path.exists():
            raise InteropError(
                f"{path} is missing, of the {len(set(places.values()))} files that {index.name} "
                "names; fetch it too."
            )
        part = read_safetensors(path)
        wanted = [tensor for tensor, place in places.items() if place == name]
        if absent := [tensor for tensor in wanted if tensor not in part]:
            raise InteropError(f"{path} has no tensor {absent[0]}, which {index.name} puts there.")
        tensors |= {tensor: part[tensor] for tensor in wanted}
    return tensors
