"""BERT from a Hugging Face directory into our `bert`, and back.

The directory holds `config.json`, `model.safetensors` and `vocab.txt`, as `save_pretrained` writes
them for `BertModel`, `BertForPreTraining`, `BertForMaskedLM` and the fine-tuned kinds.
"""

import dataclasses
import json
import pathlib

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from sibert_jax.interop.errors import InteropError
from sibert_jax.interop.layers import flatten, unflatten
from sibert_jax.interop.names import Tensor, dense, encoder_table, pretraining_table
from sibert_jax.model import ModelConfig

# What must be so for our modules to compute the same function: key, wanted value.
REQUIRED = (
    ("model_type", "bert"),
    ("hidden_act", "gelu"),
    ("position_embedding_type", "absolute"),
    ("is_decoder", False),
)
# Buffers, and copies of tied tensors that older files hold.
REDUNDANT = {
    "bert.embeddings.position_ids": None,
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
# The architecture of `config.json` that each of our heads is written as.
ARCHITECTURES = {
    "": "BertModel",
    "pretraining": "BertForPreTraining",
    "classification": "BertForSequenceClassification",
    "question_answering": "BertForQuestionAnswering",
}


@dataclasses.dataclass(frozen=True)
class HuggingFaceBert:
    """What a directory holds, in our terms.

    Attributes:
      cfg: sizes; `dropout` is theirs, `scan_layers` true.
      params: {"encoder": ...} and, of a model with a head, "head"; float32.
      head: "pretraining", "classification", "question_answering" or "": no head.
      unused: tensors of theirs that our model has no place for.
    """

    cfg: ModelConfig
    params: dict
    head: str
    unused: tuple[str, ...]


def read(directory: str | pathlib.Path) -> HuggingFaceBert:
    """Reads a directory, every name and shape checked.

    Raises:
      InteropError: a file is missing or broken, the architecture is another one, or a tensor is
        missing or of another shape.
    """
    directory = pathlib.Path(directory)
    cfg = read_config(directory / "config.json")
    tensors = read_safetensors(directory / "model.safetensors")
    tensors = {_full_name(name): array for name, array in tensors.items()}
    head = next((kind for kind, mark in _HEAD_MARKS.items() if mark in tensors), "")
    table = encoder_table(cfg) + head_table(head)
    flat, source = {}, directory / "model.safetensors"
    for tensor in table:
        if tensor.theirs in tensors:
            flat[tensor.ours] = _imported(tensor, tensors[tensor.theirs], cfg, source)
        elif tensor.ours.startswith("encoder/"):
            raise InteropError(
                f"{source} has no tensor {tensor.theirs}, which BERT of model.depth={cfg.depth} "
                "needs; it is of another architecture."
            )
    used = {tensor.theirs for tensor in table} | _redundant(tensors, source)
    params = unflatten(flat, scan_layers=cfg.scan_layers)
    return HuggingFaceBert(cfg, params, head, tuple(sorted(set(tensors) - used)))


def write(
    directory: str | pathlib.Path, cfg: ModelConfig, params: dict, head: str, num_labels: int = 2
) -> None:
    """Writes `config.json` and `model.safetensors` into a directory that is new or empty.

    Args:
      directory: made if need be.
      cfg: of the model; `arch` must be "bert".
      params: its parameters.
      head: as `HuggingFaceBert.head`; of "pretraining" the output table must be tied.
      num_labels: of a classifier.

    Raises:
      InteropError: the directory is not empty, or a parameter has no place in Hugging Face's BERT.
    """
    if cfg.arch != "bert":
        raise InteropError(
            f"model.arch={cfg.arch!r} cannot be written as Hugging Face's BERT; there is a format "
            "of its own for it."
        )
    flat = flatten(params, scan_layers=cfg.scan_layers)
    table = {tensor.ours: tensor for tensor in encoder_table(cfg) + head_table(head)}
    if extra := sorted(set(flat) - set(table)):
        raise InteropError(f"parameter {extra[0]} has no place in {ARCHITECTURES[head]}.")
    tensors = {
        table[name].theirs: np.ascontiguousarray(table[name].export(array))
        for name, array in flat.items()
    }
    if not head:
        tensors = {name.removeprefix("bert."): array for name, array in tensors.items()}
    directory = new_directory(directory)
    config = _their_config(cfg, head, num_labels)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    safetensors.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def read_config(path: pathlib.Path) -> ModelConfig:
    """Our sizes from their `config.json`."""
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InteropError(
            f"{path} is missing; name a directory with config.json and model.safetensors."
        ) from None
    except (OSError, ValueError) as error:
        raise InteropError(f"{path} cannot be read as JSON: {error}.") from None
    for key, wanted in REQUIRED:
        if key in theirs and theirs[key] != wanted:
            raise InteropError(
                f"{path}: {key} is {theirs[key]!r}, and only {wanted!r} can be read."
            )
    try:
        return ModelConfig(
            arch="bert",
            vocab_size=theirs["vocab_size"],
            max_len=theirs["max_position_embeddings"],
            num_segments=theirs["type_vocab_size"],
            width=theirs["hidden_size"],
            depth=theirs["num_hidden_layers"],
            num_heads=theirs["num_attention_heads"],
            ffn_width=theirs["intermediate_size"],
            qkv_bias=True,
            branch_scaling="none",
            norm_eps=theirs["layer_norm_eps"],
            dropout=theirs["hidden_dropout_prob"],
            init_std=theirs["initializer_range"],
            dtype="float32",
            scan_layers=True,
            remat=False,
            attention_impl="auto",
        )
    except KeyError as error:
        raise InteropError(f"{path} has no key {error}, so it is no BERT's.") from None
    except ValueError as error:  # from ModelConfig: sizes that do not fit together
        raise InteropError(f"{path}: {error}") from None


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a file, by name."""
    try:
        return safetensors.load_file(path)
    except FileNotFoundError:
        raise InteropError(f"{path} is missing.") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise InteropError(f"{path} is truncated or no safetensors file: {error}.") from None


def new_directory(directory: str | pathlib.Path) -> pathlib.Path:
    """Makes a directory; refuses one with anything in it."""
    directory = pathlib.Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InteropError(f"{directory} is there and not empty; name a new directory.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InteropError(f"{directory} cannot be made: {error}.") from None
    return directory


def head_table(head: str) -> list[Tensor]:
    """The tensors after the encoder, of each kind of model."""
    pooler = dense("head/pooler", "bert.pooler.dense")
    match head:
        case "pretraining":
            return pretraining_table()
        case "classification":
            return pooler + dense("head/classifier", "classifier")
        case "question_answering":
            return dense("head/span", "qa_outputs")
        case "":
            return pooler
    raise InteropError(f"head {head!r} is unknown; there are {list(ARCHITECTURES)}.")


_HEAD_MARKS = {
    "pretraining": "cls.predictions.bias",
    "classification": "classifier.weight",
    "question_answering": "qa_outputs.weight",
}


def _full_name(name: str) -> str:
    """The name with "bert." before it, which `BertModel` alone leaves out; TF's norm names."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    starts = ("embeddings.", "encoder.", "pooler.")
    return f"bert.{name}" if name.startswith(starts) else name


def _imported(
    tensor: Tensor, array: np.ndarray, cfg: ModelConfig, path: pathlib.Path
) -> np.ndarray:
    wanted = _their_shape(tensor, cfg)
    if wanted is not None and array.shape != wanted:
        raise InteropError(
            f"{path}: {tensor.theirs} is {array.shape}, and the sizes in config.json ask for "
            f"{wanted}."
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise InteropError(f"{path}: {tensor.theirs} is {array.dtype}, wanted a float type.")
    return np.ascontiguousarray(tensor.import_(array.astype(np.float32)))


def _their_shape(tensor: Tensor, cfg: ModelConfig) -> tuple[int, ...] | None:
    """By the sizes of the model; None for a classifier, whose labels no size tells."""
    width, name = cfg.width, tensor.theirs
    tables = {"word": cfg.vocab_size, "position": cfg.max_len, "token_type": cfg.num_segments}
    for kind, rows in tables.items():
        if f".{kind}_embeddings." in name:
            return rows, width
    if name == "cls.predictions.bias":
        return (cfg.vocab_size,)
    if name.startswith("classifier."):
        return None
    rows = width
    if ".intermediate.dense." in name:
        rows = cfg.ffn_width
    elif name.startswith(("qa_outputs.", "cls.seq_relationship.")):
        rows = 2
    if name.endswith(".bias") or ".LayerNorm." in name:
        return (rows,)
    is_down = ".output.dense." in name and ".attention." not in name
    return rows, cfg.ffn_width if is_down else width


def _redundant(tensors: dict[str, np.ndarray], path: pathlib.Path) -> set[str]:
    """Names that carry nothing of their own; a copy that differs from its original is refused."""
    found = set(REDUNDANT) & set(tensors)
    for name in found:
        original = REDUNDANT[name]
        if original is not None and not np.array_equal(tensors[name], tensors[original]):
            raise InteropError(
                f"{path}: {name} differs from {original}; an untied output cannot be read."
            )
    return found


def _their_config(cfg: ModelConfig, head: str, num_labels: int) -> dict:
    config = {
        "architectures": [ARCHITECTURES[head]],
        "model_type": "bert",
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.max_len,
        "type_vocab_size": cfg.num_segments,
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.depth,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.ffn_width,
        "hidden_act": "gelu",
        "layer_norm_eps": cfg.norm_eps,
        "hidden_dropout_prob": cfg.dropout,
        "attention_probs_dropout_prob": cfg.dropout,
        "initializer_range": cfg.init_std,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }
    if head == "classification":
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(num_labels)}
        config["label2id"] = {f"LABEL_{i}": i for i in range(num_labels)}
    return config
