"""The table from our parameter paths to Hugging Face's tensor names in BERT.

Notation as in model/config.py. PyTorch's `nn.Linear` stores (out, in), Flax's `Dense` (in, out),
and our attention kernels split or join the heads: (D, H, K) and (H, K, D).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from sibert_jax.model import ModelConfig

SEGMENTS = "encoder/embed/segment"  # our path; a model may have no such table


class Tensor(NamedTuple):
    """One tensor in both formats.

    Attributes:
      ours: path in our parameters, such as "encoder/embed/token"; "{i}" stands for the layer.
      theirs: name in Hugging Face's `BertForPreTraining` and similar classes; "{i}" likewise.
      import_: maps their array to ours.
      export: maps our array to theirs.
    """

    ours: str
    theirs: str
    import_: Callable[[np.ndarray], np.ndarray]
    export: Callable[[np.ndarray], np.ndarray]


def encoder_table(cfg: ModelConfig) -> Iterator[Tensor]:
    """Yields the embedding tables and their norm, then layer 0, layer 1, ..."""
    tables = {"token": "word", "position": "position", "segment": "token_type"}
    for ours, theirs in tables.items():
        yield _same(f"encoder/embed/{ours}", f"bert.embeddings.{theirs}_embeddings.weight")
    yield from _norm("encoder/embed_norm", "bert.embeddings.LayerNorm")
    for i in range(cfg.depth):
        for tensor in _layer(cfg):
            yield tensor._replace(ours=tensor.ours.format(i=i), theirs=tensor.theirs.format(i=i))


def _layer(cfg: ModelConfig) -> list[Tensor]:
    ours, theirs = "encoder/layers/{i}", "bert.encoder.layer.{i}"
    rows: list[Tensor] = []
    for name in ("query", "key", "value"):
        rows += _split_heads(f"{ours}/attention/{name}", f"{theirs}.attention.self.{name}", cfg)
    rows += _join_heads(f"{ours}/attention/out", f"{theirs}.attention.output.dense", cfg)
    rows += _norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
    rows += dense(f"{ours}/ffn/up", f"{theirs}.intermediate.dense")
    rows += dense(f"{ours}/ffn/down", f"{theirs}.output.dense")
    return rows + _norm(f"{ours}/ffn_norm", f"{theirs}.output.LayerNorm")


def head_table(head: str, tied: bool) -> list[Tensor]:
    """Returns the tensors of the pooler and of a head.

    Args:
      head: "pretraining", "classification", "question_answering", "token_classification" or "" for
        none.
      tied: for pretraining, whether the output table is the token table.
    """
    rows = dense("head/pooler", "bert.pooler.dense")
    if head == "pretraining":
        rows += dense("head/transform", "cls.predictions.transform.dense")
        rows += _norm("head/transform_norm", "cls.predictions.transform.LayerNorm")
        rows.append(_same("head/output_bias", "cls.predictions.bias"))
        if not tied:
            rows.append(_same("head/output", "cls.predictions.decoder.weight"))
        rows += dense("head/nsp", "cls.seq_relationship")
    elif head == "classification":
        rows += dense("head/classifier", "classifier")
    elif head == "question_answering":
        rows += dense("head/span", "qa_outputs")
    elif head == "token_classification":
        rows += dense("head/tagger", "classifier")
    return rows


def dense(ours: str, theirs: str) -> list[Tensor]:
    """Returns a linear layer with bias: our kernel (in, out), their weight (out, in)."""
    return [
        Tensor(f"{ours}/kernel", f"{theirs}.weight", np.transpose, np.transpose),
        _same(f"{ours}/bias", f"{theirs}.bias"),
    ]


def _norm(ours: str, theirs: str) -> list[Tensor]:
    return [_same(f"{ours}/scale", f"{theirs}.weight"), _same(f"{ours}/bias", f"{theirs}.bias")]


def _same(ours: str, theirs: str) -> Tensor:
    return Tensor(ours, theirs, _unchanged, _unchanged)


def _split_heads(ours: str, theirs: str, cfg: ModelConfig) -> list[Tensor]:
    kernel_DHK, bias_HK = (cfg.width, cfg.num_heads, cfg.head_width), (cfg.num_heads, -1)
    return [
        Tensor(
            f"{ours}/kernel",
            f"{theirs}.weight",
            lambda x: x.T.reshape(kernel_DHK),
            lambda x: x.reshape(cfg.width, cfg.width).T,
        ),
        Tensor(
            f"{ours}/bias", f"{theirs}.bias", lambda x: x.reshape(bias_HK), lambda x: x.reshape(-1)
        ),
    ]


def _join_heads(ours: str, theirs: str, cfg: ModelConfig) -> list[Tensor]:
    kernel_HKD = (cfg.num_heads, cfg.head_width, cfg.width)
    return [
        Tensor(
            f"{ours}/kernel",
            f"{theirs}.weight",
            lambda x: x.T.reshape(kernel_HKD),
            lambda x: x.reshape(cfg.width, cfg.width).T,
        ),
        _same(f"{ours}/bias", f"{theirs}.bias"),
    ]


def _unchanged(x: np.ndarray) -> np.ndarray:
    return x
