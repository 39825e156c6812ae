"""The `config.json` of Hugging Face's BERT: keys, defaults, sizes, heads and labels."""

import dataclasses
import pathlib
from typing import Any

from sibert_jax.errors import InteropError
from sibert_jax.interop.config_json import (
    IMPORTED,
    POSITIVE,
    RATE,
    SIZE,
    SMALL,
    SWITCH,
    check_required,
    checked,
    checked_sizes,
    first_architecture,
    read_json,
    stored_in,
    value_of,
)
from sibert_jax.model import ModelConfig

# Our head for each of their classes. Other BERT classes have heads that we do not support.
HEADS = {
    "BertModel": "",
    "BertForPreTraining": "pretraining",
    "BertForMaskedLM": "pretraining",
    "BertForSequenceClassification": "classification",
    "BertForQuestionAnswering": "question_answering",
    "BertForTokenClassification": "token_classification",
}
# Heads whose outputs have names, and our module that computes them.
LABELED = {"classification": "head/classifier", "token_classification": "head/tagger"}
# Required for our modules to compute the same function: key, accepted values; the first is the
# default of transformers.
REQUIRED = (
    ("model_type", ("bert",)),
    ("hidden_act", ("gelu", "gelu_python")),
    ("position_embedding_type", ("absolute",)),
    ("is_decoder", (False,)),
    ("add_cross_attention", (False,)),
)


# Our field, their key, its kind and the default that transformers' BertConfig has; a size without a
# default is required, since transformers would silently use that of BERT-base.
KEYS = (
    ("vocab_size", "vocab_size", SIZE, None),
    ("max_len", "max_position_embeddings", SIZE, None),
    ("num_segments", "type_vocab_size", SIZE, 2),
    ("width", "hidden_size", SIZE, None),
    ("depth", "num_hidden_layers", SIZE, None),
    ("num_heads", "num_attention_heads", SIZE, None),
    ("ffn_width", "intermediate_size", SIZE, None),
    ("norm_eps", "layer_norm_eps", SMALL, 1e-12),
    ("dropout", "hidden_dropout_prob", RATE, 0.1),
    ("init_std", "initializer_range", POSITIVE, 0.02),
)


@dataclasses.dataclass(frozen=True)
class TheirConfig:
    """A checked `config.json`.

    Attributes:
      cfg: our sizes; a single token type becomes two equal segments.
      num_types: `type_vocab_size`, the rows of their segment table.
      attention_dropout: their rate on the attention weights; ours is `cfg.dropout` everywhere.
      architecture: the first of `architectures`, or None.
      labels: names of a classifier's outputs, in order.
      tied: whether the output table is the token table.
      values: the unchanged contents.
    """

    cfg: ModelConfig
    num_types: int
    attention_dropout: float
    architecture: str | None
    labels: tuple[str, ...]
    tied: bool
    values: dict[str, Any]


def read_config(path: pathlib.Path) -> TheirConfig:
    """Reads and checks the sizes of a directory; a null key counts as absent.

    Raises:
      InteropError: the file is missing, broken, or for an unsupported model.
    """
    theirs = read_json(path)
    check_required(path, theirs, REQUIRED)
    architecture = first_architecture(path, theirs)
    has_type = value_of(theirs, "model_type", None) is not None
    if architecture and not has_type and not architecture.startswith("Bert"):
        raise InteropError(
            f"{path}: architectures names {architecture}, but only BERT is supported."
        )
    sizes = checked_sizes(path, theirs, KEYS)
    num_types = sizes["num_segments"]
    sizes["num_segments"] = max(2, num_types)
    cfg = ModelConfig(arch="bert", **sizes, **IMPORTED)
    tied = checked(path, theirs, "tie_word_embeddings", SWITCH, True)
    attention_dropout = checked(path, theirs, "attention_probs_dropout_prob", RATE, 0.1)
    labels = _labels(path, theirs)
    return TheirConfig(cfg, num_types, attention_dropout, architecture, labels, tied, theirs)


def make_config(
    cfg: ModelConfig, architecture: str, labels: tuple[str, ...], tied: bool, pad_id: int
) -> dict[str, Any]:
    """Returns a `config.json` for one of our models, as transformers reads it."""
    sizes = dataclasses.asdict(cfg) | {"num_segments": max(2, cfg.num_segments)}
    config = {"architectures": [architecture], "model_type": "bert"}
    config |= {key: sizes[ours] for ours, key, _, _ in KEYS}
    config |= {
        "hidden_act": "gelu",
        "attention_probs_dropout_prob": cfg.dropout,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": tied,
        "pad_token_id": pad_id,
        "torch_dtype": "float32",
    }
    head = HEADS[architecture]
    if head in LABELED:
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
    if head == "classification":
        one_label = len(labels) == 1
        config["problem_type"] = "regression" if one_label else "single_label_classification"
    return config


def kept_config(theirs: TheirConfig, head: str, *, has_nsp: bool) -> dict[str, Any]:
    """Returns the original `config.json`, adapted to float32 weights and this head.

    Args:
      theirs: the config that was read.
      head: the head whose weights were read; "" for none.
      has_nsp: whether there is a next-sentence head.
    """
    kept = stored_in(theirs.values, "float32")
    if theirs.architecture in HEADS and HEADS[theirs.architecture] == head:
        return kept
    if not head:
        of_heads = ("id2label", "label2id", "num_labels", "problem_type")
        kept = {key: value for key, value in kept.items() if key not in of_heads}
    return kept | {"architectures": [architecture_of(head, has_nsp=has_nsp)]}


def architecture_of(head: str, *, has_nsp: bool) -> str:
    """Returns the transformers class for one of our heads."""
    if head == "pretraining" and not has_nsp:
        return "BertForMaskedLM"
    return next(name for name, kind in HEADS.items() if kind == head)


def _labels(path: pathlib.Path, theirs: dict[str, Any]) -> tuple[str, ...]:
    count = checked(path, theirs, "num_labels", SIZE, 2)
    names = value_of(theirs, "id2label", {str(i): f"LABEL_{i}" for i in range(count)})
    try:
        by_id = {int(i): name for i, name in names.items()}
    except (AttributeError, ValueError):
        by_id = {}
    if (
        sorted(by_id) != list(range(len(by_id)))
        or not by_id
        or not all(isinstance(name, str) for name in by_id.values())
    ):
        raise InteropError(
            f"{path}: id2label is {names!r}, expected a name for each of 0, 1, 2, ..."
        )
    return tuple(by_id[i] for i in range(len(by_id)))
