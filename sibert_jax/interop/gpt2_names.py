"""The table from our parameter paths to Hugging Face's tensor names in GPT-2.

Notation as in model/config.py. The kernels of Hugging Face's `Conv1D` are (in, out), like those of
Flax's `Dense`; one of them holds queries, keys and values side by side, and our attention kernels
have an axis of heads. So each of our parameters is a range of columns of a tensor, reshaped.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sibert_jax.model import ModelConfig

DECODER = "transformer."
TOKENS, OUTPUT = f"{DECODER}wte.weight", "lm_head.weight"

Shape = tuple[int, ...]


class Row(NamedTuple):
    """One of our parameters and its source.

    Attributes:
      ours: its path, such as "encoder/embed/token".
      our_shape: its shape.
      theirs: name of the `GPT2LMHeadModel` tensor that contains it.
      shape: the shape of that tensor.
      columns: the range of its last axis that holds our parameter.
    """

    ours: str
    our_shape: Shape
    theirs: str
    shape: Shape
    columns: slice = slice(None)


def table(cfg: ModelConfig) -> Iterator[Row]:
    """Yields all parameters of a `gpt`: tables, layer 0, layer 1, ..., and the final norm."""
    width = cfg.width
    tables = {"token": (TOKENS, cfg.vocab_size), "position": (f"{DECODER}wpe.weight", cfg.max_len)}
    for ours, (theirs, size) in tables.items():
        yield Row(f"encoder/embed/{ours}", (size, width), theirs, (size, width))
    for i in range(cfg.depth):
        yield from _layer(cfg, f"encoder/layers/{i}", f"{DECODER}h.{i}")
    yield from _norm("encoder/final_norm", f"{DECODER}ln_f", width)


def _layer(cfg: ModelConfig, ours: str, theirs: str) -> list[Row]:
    width, heads_HK = cfg.width, (cfg.num_heads, cfg.head_width)
    rows = _norm(f"{ours}/attention_norm", f"{theirs}.ln_1", width)
    for i, name in enumerate(("query", "key", "value")):
        columns = slice(i * width, (i + 1) * width)
        kernel, bias = f"{ours}/attention/{name}/kernel", f"{ours}/attention/{name}/bias"
        joint = f"{theirs}.attn.c_attn"
        rows += [
            Row(kernel, (width, *heads_HK), f"{joint}.weight", (width, 3 * width), columns),
            Row(bias, heads_HK, f"{joint}.bias", (3 * width,), columns),
        ]
    out_HKD = (*heads_HK, width)
    rows += _dense(f"{ours}/attention/out", f"{theirs}.attn.c_proj", (width, width), out_HKD)
    rows += _norm(f"{ours}/ffn_norm", f"{theirs}.ln_2", width)
    up, down = (width, cfg.ffn_width), (cfg.ffn_width, width)
    rows += _dense(f"{ours}/ffn/up", f"{theirs}.mlp.c_fc", up, up)
    return rows + _dense(f"{ours}/ffn/down", f"{theirs}.mlp.c_proj", down, down)


def _dense(ours: str, theirs: str, shape: Shape, our_shape: Shape) -> list[Row]:
    size = shape[-1:]
    return [
        Row(f"{ours}/kernel", our_shape, f"{theirs}.weight", shape),
        Row(f"{ours}/bias", size, f"{theirs}.bias", size),
    ]


def _norm(ours: str, theirs: str, width: int) -> list[Row]:
    names = {"scale": "weight", "bias": "bias"}
    return [Row(f"{ours}/{a}", (width,), f"{theirs}.{b}", (width,)) for a, b in names.items()]
