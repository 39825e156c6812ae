"""Our training steps, Hugging Face's BERT and GPT-2 in PyTorch, and the bare limit.

All take the same steps on the same batches: sizes, length, masked share and next-sentence loss are
alike. PyTorch runs in a process of its own, which waits while we measure, as we do while it does.
"""

import contextlib
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import matrix_product, measuring, train_step
from benchmarks.models import BERT, SIBERT
from benchmarks.rival import Rival, RivalError

PRODUCTS = {"JAX": "matrix product in JAX", "PyTorch": "matrix product in PyTorch"}
VOCAB_SIZES = (8192, 30_522)
GPT, SIGPT = "GPT, AdamW", "scale-invariant GPT, orthogonalized SGD"
SHARE = "share of the matrix product's rate"
AS_IT_IS = "of Hugging Face's as it is"
MASKED_HEAD = (
    "Hugging Face's BERT computes logits at every position; with a masked head its own encoder and "
    "head compute them at the masked positions only, as ours do."
)
NOTE = (
    f"The share is the model's FLOP/s over those of a product of two float32 matrices of "
    f"{matrix_product.SIZE:,} × {matrix_product.SIZE:,}, the faster of JAX's and PyTorch's in the "
    "same repeat. FLOPs are counted alike for all: those of the matrix products that the loss "
    "needs, with logits at the positions to predict only."
)


class Family(NamedTuple):
    """What is compared.

    Attributes:
      theirs: what Hugging Face's model is called.
      arms: ours, with what `step_config` calls them; the last has the same computation as theirs.
    """

    theirs: str
    arms: dict[str, str]


FAMILIES = {
    "bert": Family("BERT", {SIBERT: "sibert", BERT: "bert"}),
    "gpt": Family("GPT-2", {SIGPT: "gpt:mini", GPT: "gpt:mini_adamw"}),
}


class Size(NamedTuple):
    """Of a model and its batch; `num_steps` is what one repeat takes."""

    width: int
    depth: int
    num_heads: int
    batch_size: int
    num_steps: int


SIZES = {
    "mini": Size(128, 2, 2, 32, 6),
    "4x256": Size(256, 4, 4, 16, 4),
    "4x512": Size(512, 4, 8, 8, 4),
    "base": Size(768, 12, 12, 4, 2),
}


SIZE_KEYS = {
    "bert": (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "max_position_embeddings",
    ),
    "gpt2": ("vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "n_positions"),
}  # fmt: skip


def measure(
    python: str,
    *,
    family: str = "bert",
    sizes: tuple[str, ...] = tuple(SIZES),
    vocab_sizes: tuple[int, ...] = VOCAB_SIZES,
    repeats: int = 5,
) -> measuring.Result:
    """Tokens/s of all contestants at all sizes.

    Args:
      python: one that has torch and transformers; without it only ours are measured.
      family: of `FAMILIES`.
      sizes: names of `SIZES`.
      vocab_sizes: numbers of WordPieces.
      repeats: of each contestant.
    """
    rows, notes = [], []
    with contextlib.ExitStack() as stack:
        rival = None
        try:
            if (platform := jax.default_backend()) != "cpu":
                raise RivalError(
                    f"it is measured on the CPU only, and JAX runs on {platform} here."
                )
            rival = stack.enter_context(Rival([python, "-m", "benchmarks.pytorch_process"]))
            found = rival.ask("versions", threads=measuring.num_cores())
            notes.append(f"torch {found['torch']}, transformers {found['transformers']}.")
        except RivalError as error:
            rival = _left_out(error, notes)
        for name in sizes:
            for vocab_size in vocab_sizes:
                contestants = SIZES[name], vocab_size
                group = f"{name}, vocabulary {vocab_size:,}"
                try:
                    rows += measure_size(group, *contestants, rival, repeats, notes, family)
                except RivalError as error:
                    rival = _left_out(error, notes)
                    rows += measure_size(group, *contestants, rival, repeats, notes, family)
    return measuring.Result(
        title=f"Training step: ours and Hugging Face's {FAMILIES[family].theirs} in PyTorch, "
        "float32, length 128",
        unit="tokens/s",
        more_is_better=True,
        baseline="the best of ours" if rival is None else "PyTorch's best",
        rows=rows,
        notes=[*notes, *([MASKED_HEAD] if family == "bert" else []), NOTE],
    )


def _left_out(error: RivalError, notes: list[str]) -> None:
    notes.append(f"PyTorch is left out: {error} `make bench` installs what it needs.")
    measuring.say(notes[-1])


def measure_size(
    group: str,
    size: Size,
    vocab_size: int,
    rival: Rival | None,
    repeats: int,
    notes: list[str],
    family: str = "bert",
) -> list[measuring.Row]:
    """The rows of one size; what could not be measured goes to the notes.

    Raises:
      RivalError: PyTorch's process ended.
    """
    runs = {
        name: train_step.start(step_config(arm, size, vocab_size))
        for name, arm in FAMILIES[family].arms.items()
    }
    timed = {name: train_step.step_timer(run, size.num_steps) for name, run in runs.items()}
    per_token = {
        name: run.trainer.shapes.task.flops_per_token(run.trainer.run.data.seq_len)
        for name, run in runs.items()
    }
    timed[PRODUCTS["JAX"]] = matrix_product.flops_per_second
    if rival is not None:
        like_theirs = list(runs)[-1]
        theirs = rival_timers(rival, runs[like_theirs], size, notes)
        per_token |= dict.fromkeys(theirs, per_token[like_theirs])
        timed |= theirs | {PRODUCTS["PyTorch"]: lambda: _product_in(rival)}
    measuring.say(f"measuring {group}")
    return as_rows(group, measuring.in_turn(timed, repeats), per_token)


def step_config(arm: str, size: Size, vocab_size: int):
    """Ours; an encoder has the segments and the next-sentence loss that Hugging Face's BERT has."""
    config = train_step.model_config(
        arm,
        width=size.width,
        depth=size.depth,
        num_heads=size.num_heads,
        batch_size=size.batch_size,
        vocab_size=vocab_size,
    )
    if config.task.name == "pretraining":
        config.task.nsp, config.model.num_segments = True, 2
    return config


def rival_timers(
    rival: Rival, run: train_step.Started, size: Size, notes: list[str]
) -> dict[str, Callable[[], float]]:
    """PyTorch's contestants on the batches of a run, each returning tokens/s."""
    model = run.trainer.run.model
    kind = "gpt2" if model.is_causal else "bert"
    values = model.vocab_size, size.width, size.depth, size.num_heads, model.ffn_width
    sizes = dict(zip(SIZE_KEYS[kind], (*values, model.max_len), strict=True))
    batches = [jax.device_get(run.batch(index)) for index in range(size.num_steps)]
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "batches.npz"
        np.savez(path, **{name: np.stack([b[name] for b in batches]) for name in batches[0]})
        measuring.say("PyTorch compiles its steps")
        prepared = rival.ask("prepare", kind=kind, sizes=sizes, batches=str(path))
    for way, why in prepared["failed"].items():
        notes.append(f"PyTorch, {way}, is left out: {why}")
    tokens = size.num_steps * run.tokens_per_step

    def timer(way: str) -> Callable[[], float]:
        return lambda: tokens / rival.ask("steps", way=way)["seconds"]

    return {f"PyTorch, {way}": timer(way) for way in prepared["ways"]}


def _product_in(rival: Rival) -> float:
    asked = {"size": matrix_product.SIZE, "times": matrix_product.TIMES}
    return rival.ask("matrix_product", **asked)["flops_per_second"]


def as_rows(
    group: str, values: measuring.Speeds, per_token: dict[str, float]
) -> list[measuring.Row]:
    """Rows whose ratios are to PyTorch's best (without it: to the best of ours).

    Further columns are the share of the matrix product's rate, and the ratio to the best of Hugging
    Face's model as it is, with logits at every position.

    Args:
      group: of all the rows.
      values: tokens/s, and FLOP/s of the matrix products.
      per_token: FLOPs of each contestant.
    """
    products = [values.pop(name) for name in PRODUCTS.values() if name in values]
    limit = [max(of_one_repeat) for of_one_repeat in zip(*products)]
    more = {}
    for name, speeds in values.items():
        shares = [per_token[name] * speed / best for speed, best in zip(speeds, limit)]
        more[name] = {SHARE: statistics.median(shares)}
    theirs = [name for name in values if name.startswith("PyTorch")]
    if not theirs:
        return measuring.rows(values, _fastest(values, values), group, more)
    as_it_is = [name for name in theirs if not name.endswith("masked head")]
    if as_it_is and len(as_it_is) < len(theirs):
        against = values[_fastest(values, as_it_is)]
        for name, speeds in values.items():
            ratios = [speed / other for speed, other in zip(speeds, against)]
            more[name][AS_IT_IS] = statistics.median(ratios)
    return measuring.rows(values, _fastest(values, theirs), group, more)


def _fastest(values: measuring.Speeds, names: Iterable[str]) -> str:
    return max(names, key=lambda name: statistics.median(values[name]))
