"""The parameters of a checkpoint as one file that needs neither Orbax nor JAX.

The format is safetensors: plain bytes behind a JSON header, read by PyTorch, NumPy, JAX and the
Hugging Face hub, without pickle. An .npz was the alternative; it has no bfloat16.
"""

import json
import pathlib

from safetensors import SafetensorError
from safetensors.numpy import save_file

from sibert_jax.checkpoint.manifest import Manifest
from sibert_jax.checkpoint.verify import read_leaves, verify
from sibert_jax.errors import CheckpointError
from sibert_jax.files import atomically


def export(path: pathlib.Path, target: pathlib.Path) -> Manifest:
    """Writes the verified parameters of a checkpoint to a file; replaces none.

    Args:
      path: the checkpoint's directory.
      target: a name that ends in .safetensors and is free. Tensors are named "encoder/...",
        "head/...", the metadata holds the step, the versions and the run's description.

    Returns:
      The checkpoint's manifest.
    """
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target} must end in .safetensors, the format it is written in.")
    if target.exists():
        raise CheckpointError(f"{target} exists; remove it or choose another name.")
    manifest = verify(path)
    tensors = {name.removeprefix("params/"): leaf for name, leaf in read_leaves(path, "params")}
    facts = {"step": manifest.step, "versions": manifest.versions, "run": manifest.run}
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    try:
        with atomically(target) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{target} cannot be written: {error}.") from None
    return manifest
