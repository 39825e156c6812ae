"""The directory of a quantized model, both unfinished (block by block) and finished."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import numpy as np

import sibert_jax
from sibert_jax.errors import ConfigError
from sibert_jax.files import atomically, write_json
from sibert_jax.inference.loaded_model import LoadedModel
from sibert_jax.interop import exported, quantized
from sibert_jax.interop.hugging_face_model import new_directory
from sibert_jax.interop.quantized import Quantized
from sibert_jax.interop.tensor_files import SINGLE
from sibert_jax.quantize.model import Done
from sibert_jax.quantize.settings import Settings

UNFINISHED, MANIFEST = "unfinished", "quantization.json"

CARD = """# {arch} in {bits} bits, {megabytes:.1f} MB

Written by sibert_jax {version} from {source}.

- weights of matrix products: {bits} bits, {grid}, {group}, {method}
- tables of embeddings: {tables}
- gains, biases and all else: float32
- {megabytes:.2f} MB in place of {float_megabytes:.2f} MB: {ratio:.1f} times smaller

Files: `config.json` (sizes), `model.safetensors` (of each matrix NAME: NAME.codes, integers packed
without gaps from the lowest bit up; NAME.scale, float32; NAME.zero, packed; their form is in the
file's metadata), `{manifest}` (settings and the error of each block), and the vocabulary.

```python
import sibert_jax

model = sibert_jax.load(".")
```

Floats, also for PyTorch: `python -m sibert_jax.interop export DIRECTORY TARGET`.

| block | squared error, nearest | as written | seconds |
| :-- | --: | --: | --: |
{table}
"""


class Unfinished:
    """The finished blocks so far, in a folder of the target.

    Args:
      target: new, empty, or left by an interrupted call with the same identity.
      identity: everything that the result depends on, as JSON values.

    Raises:
      ConfigError: the target contains a model, or unfinished work of another identity.
      InteropError: the target cannot be created or contains other files.
    """

    def __init__(self, target: pathlib.Path, identity: dict):
        self.target, self._folder = target, target / UNFINISHED
        path = self._folder / "identity.json"
        if (target / "config.json").exists():
            raise ConfigError(f"{target} holds a model already; name a new directory.")
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if wrong := sorted(key for key in identity if found.get(key) != identity[key]):
                raise ConfigError(
                    f"{target} was started with different {', '.join(wrong)}; give the same "
                    "command to continue, or name another directory."
                )
            return
        new_directory(target)
        self._folder.mkdir()
        write_json(path, identity)

    def keep(self, done: Done) -> None:
        """Writes a block; files are numbered in forward order."""
        place = len(list(self._folder.glob("*.safetensors")))
        stem = f"{place:04}.{done.block.replace('/', '.')}"
        write_json(self._folder / f"{stem}.json", done._replace(tensors={})._asdict())
        with atomically(self._folder / f"{stem}.safetensors") as path:
            quantized.write(path, done.tensors)

    def done(self) -> dict[str, Done]:
        """Returns the finished blocks by name, in that order."""
        found = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            found[record["block"]] = Done(**record | {"tensors": quantized.read(path)})
        return found

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self._folder)


def digest(params: Mapping[str, np.ndarray], batches: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Returns a hash of parameters and batches."""
    found = hashlib.sha256()
    for arrays in (params, *batches):
        for name, array in sorted(arrays.items()):
            found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def write(
    target: pathlib.Path,
    model: LoadedModel,
    tensors: Mapping[str, Quantized | np.ndarray],
    settings: Settings,
    blocks: Sequence[Done],
) -> int:
    """Writes the finished model into its directory; returns the size of the weights in bytes.

    Args:
      target: the output directory.
      model: the model that was quantized.
      tensors: all leaves by name, quantized or not.
      settings: bits, groups, method.
      blocks: the finished blocks, in forward order.
    """
    quantized.write(target / SINGLE, tensors)
    model.tokenizer.save(target / model.tokenizer.file_name)
    if model.trained is not None:
        model.trained.restored(model.config, model.directory).save(target)
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    floats = sum(4 * _size(tensor) for tensor in tensors.values())
    described = dataclasses.asdict(settings)
    manifest = {
        "version": sibert_jax.__version__,
        "source": model.directory.name,
        "settings": described,
        "bytes": nbytes,
        "bytes_float32": floats,
        "blocks": [done._replace(tensors=sorted(done.tensors))._asdict() for done in blocks],
    }
    write_json(target / MANIFEST, manifest)
    rows = (f"| {d.block} | {d.nearest:.3g} | {d.error:.3g} | {d.seconds:.1f} |" for d in blocks)
    card = CARD.format(
        arch=model.config.arch,
        version=sibert_jax.__version__,
        source=model.directory.name,
        bits=settings.bits,
        grid="symmetric" if settings.symmetric else "asymmetric",
        group="one scale per output" if settings.group == -1 else f"groups of {settings.group}",
        method="round to nearest"
        if settings.method == "rtn"
        else f"SignRound, {settings.steps} steps",
        tables=f"{settings.tables} bits, round to nearest" if settings.tables else "float32",
        megabytes=nbytes / 1e6,
        float_megabytes=floats / 1e6,
        ratio=floats / nbytes,
        manifest=MANIFEST,
        table="\n".join(rows),
    )
    (target / "README.md").write_text(card, encoding="utf-8")
    exported.write_config(target, model.config, model.labels, model.trained, described)
    return nbytes


def _size(tensor: Quantized | np.ndarray) -> int:
    return tensor.codes_OGJ.size if isinstance(tensor, Quantized) else tensor.size
