"""A self-contained directory for any of our models: sizes, weights, code to run it, a README.

The weights have our names, one set per layer, so that they can be read without this package.
Reading them back gives the same bits, or the float32 values of weights rounded to a shorter type.
"""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import sibert_jax
from sibert_jax.errors import InteropError
from sibert_jax.files import user_path
from sibert_jax.interop import quantized
from sibert_jax.interop.config_json import read_json
from sibert_jax.interop.hugging_face_model import new_directory
from sibert_jax.interop.packed import pack_all
from sibert_jax.interop.per_layer import flatten, unflatten
from sibert_jax.interop.tensor_files import SINGLE, in_dtype, write_safetensors
from sibert_jax.keys import from_dict
from sibert_jax.model import ModelConfig
from sibert_jax.tasks.registry import task_type
from sibert_jax.tasks.task import Task

# Not a module of this package, which does not need torch: it is exported with the weights.
MODELING = pathlib.Path(__file__).with_name("modeling_sibert.py.txt")
FORMAT = "sibert_jax"  # value of the key "format" of config.json, absent in Hugging Face's
WITH_MODELING = ("sibert", "sibert_qk_norm", "sibert_sandwich")

README = """# {arch}, {millions:.1f} million parameters

Written by sibert_jax {version} from {source}.

- `config.json`: sizes, as `ModelConfig` of sibert_jax has them
- `model.safetensors`: {dtype} weights, one tensor a line below
- `vocab.txt` (WordPiece), or `vocab.json` and `merges.txt` (byte-level BPE): the vocabulary
- `tokenizer_config.json`: how text is cleaned{modeling}

Read it back into JAX, {exactness}:

```python
from sibert_jax.interop import exported

cfg, params = exported.read(".")
```
{torch}
| tensor | shape |
| :-- | :-- |
{table}
"""

TORCH = """
Or run the encoder in PyTorch, with nothing but torch and safetensors:

```python
import torch
from modeling_sibert import Sibert

features = Sibert.from_directory(".")(torch.tensor([[2, 5, 7, 3]]))  # (1, 4, {width})
```
"""


@dataclasses.dataclass(frozen=True)
class SavedTask:
    """The task of a run, which is needed to use its head.

    Attributes:
      settings: the section `task` of the run's config.
      seq_len: the maximum length of an example in tokens.
    """

    settings: dict
    seq_len: int

    @classmethod
    def of(cls, settings: dict) -> "SavedTask":
        """Reads a run's `config.json`; its other keys may be from another version."""
        return cls(settings["task"], settings["data"]["seq_len"])

    @property
    def pools_tokens(self) -> bool:
        """Whether the head reads tokens other than the first."""
        return "pooling" in self.settings and self.settings["pooling"] != "first"

    def restored(self, cfg: ModelConfig, directory: pathlib.Path) -> Task:
        """Builds the task without data; `directory` is the run's, or one written by `write`."""
        kind = task_type(self.settings["name"])
        return kind.of_workdir(cfg, self.config, (self.seq_len,), directory)

    @property
    def config(self) -> Any:
        """The task's config object."""
        return from_dict(task_type(self.settings["name"]).config, self.settings, "task")


def write(
    directory: str | pathlib.Path,
    cfg: ModelConfig,
    params: dict,
    source: str,
    labels: tuple[str, ...] = (),
    task: SavedTask | None = None,
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes a model into a new or empty directory, and returns it.

    Args:
      directory: created if necessary.
      cfg: the model's config.
      params: {"encoder": ...} and, if present, "head", float32.
      source: the origin of the weights, for the README.
      labels: names of the head's outputs, in order, for "id2label" of config.json; () if they have
        none.
      task: the task that the head was trained for; None: unknown.
      dtype: dtype of the stored weights, "float32", "bfloat16" or "float16".

    Raises:
      InteropError: the directory is not empty or cannot be created, or a weight is too large for
        the dtype.
    """
    flat = in_dtype(flatten(params, scan_layers=cfg.scan_layers), dtype)
    directory = new_directory(directory)
    write_config(directory, cfg, labels, task)
    write_safetensors(directory / SINGLE, flat)
    has_modeling = cfg.arch in WITH_MODELING
    if has_modeling:
        shutil.copyfile(MODELING, directory / MODELING.stem)
    text = README.format(
        arch=cfg.arch,
        millions=sum(array.size for array in flat.values()) / 1e6,
        version=sibert_jax.__version__,
        source=source,
        dtype=dtype,
        exactness="bit for bit" if dtype == "float32" else "as float32 with the rounded values",
        modeling=f"\n- `{MODELING.stem}`: the encoder in PyTorch" if has_modeling else "",
        torch=TORCH.format(width=cfg.width) if has_modeling else "",
        table="\n".join(f"| `{name}` | {array.shape} |" for name, array in flat.items()),
    )
    (directory / "README.md").write_text(text, encoding="utf-8")
    return directory


def write_config(
    directory: pathlib.Path,
    cfg: ModelConfig,
    labels: tuple[str, ...],
    task: SavedTask | None,
    quantization: dict | None = None,
) -> None:
    """Writes `config.json`; arguments as for `write`, plus the description of the quantization."""
    config = {"format": FORMAT, "version": sibert_jax.__version__} | dataclasses.asdict(cfg)
    if labels:
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    if task is not None:
        config |= {"task": task.settings, "seq_len": task.seq_len}
    if quantization is not None:
        config["quantization"] = quantization
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def read(directory: str | pathlib.Path, *, packed: bool = False) -> tuple[ModelConfig, dict]:
    """Reads the config and the parameters from a directory of `write` or sibert_jax.quantize.

    Args:
      directory: written by either.
      packed: whether to keep quantized matrices as `Packed`; otherwise all parameters are float32.

    Raises:
      InteropError: a file is missing, broken or from another program.
    """
    directory = user_path(directory)
    cfg = read_config(directory / "config.json")
    tensors = quantized.read(directory / SINGLE)
    flat = pack_all(tensors) if packed else quantized.dequantized(tensors)
    return cfg, unflatten(flat, scan_layers=cfg.scan_layers)


def read_task(directory: pathlib.Path) -> SavedTask | None:
    """Reads the task from a directory of `write`; None if it has none."""
    values = read_json(directory / "config.json")
    if "task" not in values:
        return None
    return SavedTask(values["task"], values["seq_len"])


def read_labels(directory: pathlib.Path) -> tuple[str, ...]:
    """Reads the names of the head's outputs; () if the directory has none."""
    values = read_json(directory / "config.json")
    if "id2label" not in values:
        return ()
    return tuple(values["id2label"][str(i)] for i in range(len(values["id2label"])))


def is_quantized(directory: pathlib.Path) -> bool:
    """Tells whether a directory contains a quantized model."""
    path = directory / "config.json"
    return path.is_file() and "quantization" in read_json(path)


def read_config(path: pathlib.Path) -> ModelConfig:
    """Reads the model config from the `config.json` of `write`."""
    values = read_json(path)
    if "format" not in values or values["format"] != FORMAT:
        raise InteropError(
            f'{path} has no "format": "{FORMAT}", so it was not written by sibert_jax.'
        )
    fields = {field.name: field.type for field in dataclasses.fields(ModelConfig)}
    if absent := sorted(set(fields) - set(values)):
        raise InteropError(f"{path} lacks the key {absent[0]!r}.")
    for name, kind in fields.items():
        value = values[name]
        if type(value) is not kind and (kind is not float or type(value) is not int):
            raise InteropError(f"{path}: {name} is {value!r}, wanted {kind.__name__}.")
    try:
        return ModelConfig(**{name: values[name] for name in fields})
    except ValueError as error:
        raise InteropError(f"{path}: {error}") from None
