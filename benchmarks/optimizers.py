"""Time and memory of one update on BERT-base's parameters: ours against optax's.

Every repeat runs all optimizers once, in turn, so that a busy machine is busy for all; a row gives
the median with the least and the greatest. The parameters are donated, as in a training loop.

    python -m benchmarks.optimizers
"""

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sibert_jax.optim import (
    clip_by_relative_global_norm,
    hyperball,
    scale_by_psgd_kron,
    scale_by_psgd_low_rank,
    scale_by_psgd_matrix_free,
    scale_invariant_sgd,
    sgd_sai,
    track_rotation,
)

BASELINE = "optax.adamw"


class Row(NamedTuple):
    """One optimizer's figures.

    Attributes:
      name: the optimizer.
      median_ms: milliseconds of an update and its application, the median over the repeats.
      min_ms: the least.
      max_ms: the greatest.
      ratio: the median over the repeats of this time over the baseline's in the same repeat.
      passes: bytes that XLA counts its program to read and write, over those of the parameters.
      state_bytes_per_parameter: bytes of optimizer state over the number of parameters.
    """

    name: str
    median_ms: float
    min_ms: float
    max_ms: float
    ratio: float
    passes: float
    state_bytes_per_parameter: float


def bert_leaves(width: int, depth: int, vocab_size: int = 30_522, max_len: int = 512) -> dict:
    """Return the shapes of BERT's parameters: embeddings, layers, pooler and heads."""
    vector, square = (width,), (width, width)
    norm = {"scale": vector, "bias": vector}
    layer = {
        **{name: {"kernel": square, "bias": vector} for name in ("query", "key", "value", "out")},
        "up": {"kernel": (width, 4 * width), "bias": (4 * width,)},
        "down": {"kernel": (4 * width, width), "bias": vector},
        "attention_norm": norm,
        "ffn_norm": norm,
    }
    return {
        "embeddings": {
            "token": (vocab_size, width),
            "position": (max_len, width),
            "segment": (2, width),
            "norm": norm,
        },
        **{f"layer_{n}": layer for n in range(depth)},
        "pooler": {"kernel": square, "bias": vector},
        "mlm": {"kernel": square, "bias": vector, "norm": norm, "output_bias": (vocab_size,)},
        "nsp": {"kernel": (width, 2), "bias": (2,)},
    }


bert_base_leaves = functools.partial(bert_leaves, width=768, depth=12)


def optimizers() -> dict[str, optax.GradientTransformation]:
    """Return the optimizers that are timed on all leaves, by name."""
    clipped_sgd = optax.chain(clip_by_relative_global_norm(0.1), optax.sgd(1e-3))
    return {
        "scale_invariant_sgd": scale_invariant_sgd(8e-4, 1e-2),
        "scale_invariant_sgd, no clip": scale_invariant_sgd(8e-4, 1e-2, clip_factor=None),
        "clip_by_relative_global_norm + sgd": clipped_sgd,
        "sgd_sai": sgd_sai(1e-3),
        "hyperball(sgd with momentum)": hyperball(optax.sgd(1.0, momentum=0.9), 1e-3),
        "track_rotation(sgd)": track_rotation(optax.sgd(1e-3), 1e-3),
        "psgd matrix free": optax.chain(scale_by_psgd_matrix_free(), optax.scale(-1e-3)),
        "optax.sgd": optax.sgd(1e-3),
        "optax.sgd with momentum": optax.sgd(1e-3, momentum=0.9),
        "optax.clip_by_global_norm + sgd": optax.chain(
            optax.clip_by_global_norm(1.0), optax.sgd(1e-3)
        ),
        "optax.adamw": optax.adamw(1e-3),
        "optax.lion": optax.lion(1e-4),
    }


def heavy_optimizers() -> dict[str, optax.GradientTransformation]:
    """Return those with matrix products, which take seconds a step on a CPU."""
    kron = scale_by_psgd_kron(max_size_triangular=1024)
    low_rank = scale_by_psgd_low_rank(rank=4)
    return {
        "psgd kron (axes up to 1024)": optax.chain(kron, optax.scale(-1e-3)),
        "psgd low rank (rank 4)": optax.chain(low_rank, optax.scale(-1e-3)),
        "hyperball(muon)": hyperball(optax.contrib.muon(1.0), 1e-3),
        "optax.contrib.muon": optax.contrib.muon(1e-3),
    }


def _random_tree(shapes: dict, seed: int) -> dict:
    rng = np.random.default_rng(seed)

    def leaf(shape):
        return jnp.asarray(0.02 * rng.standard_normal(shape, np.float32))

    return jax.tree.map(leaf, shapes, is_leaf=lambda x: isinstance(x, tuple))


def _compiled(tx: optax.GradientTransformation, grads: dict) -> jax.stages.Compiled:
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, grads)
    return jax.jit(step, donate_argnums=(0, 1)).lower(grads, state, grads).compile()


def measure(
    shapes: dict | None = None,
    *,
    repeats: int = 9,
    chosen: dict[str, optax.GradientTransformation] | None = None,
) -> list[Row]:
    """Return a row an optimizer.

    Args:
      shapes: tree of shapes, default BERT-base's.
      repeats: timed steps of each, after one that is not.
      chosen: name to optimizer, the baseline `optax.adamw` among them; default `optimizers()`.
    """
    chosen = optimizers() if chosen is None else chosen
    grads = _random_tree(bert_base_leaves() if shapes is None else shapes, seed=1)
    size = sum(leaf.size for leaf in jax.tree.leaves(grads))
    steps, times, passes, bytes_of = {}, {name: [] for name in chosen}, {}, {}
    for name, tx in chosen.items():
        step, state = _compiled(tx, grads), tx.init(grads)
        passes[name] = step.cost_analysis()["bytes accessed"] / (4 * size)
        bytes_of[name] = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        params = jax.tree.map(lambda g: -0.5 * g, grads)
        steps[name] = (step, *jax.block_until_ready(step(params, state, grads)))
    for _ in range(repeats):
        for name, (step, params, state) in steps.items():
            start = time.perf_counter()
            params, state = jax.block_until_ready(step(params, state, grads))
            times[name].append(1e3 * (time.perf_counter() - start))
            steps[name] = (step, params, state)
    baseline = np.array(times[BASELINE])
    return [
        Row(
            name,
            float(np.median(ms)),
            float(np.min(ms)),
            float(np.max(ms)),
            float(np.median(np.array(ms) / baseline)),
            passes[name],
            bytes_of[name] / size,
        )
        for name, ms in times.items()
    ]


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        f"| optimizer | ms (least–greatest) | of {BASELINE} | passes over memory "
        "| state, bytes a parameter |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.median_ms:.1f} ({row.min_ms:.1f}–{row.max_ms:.1f}) "
        f"| {row.ratio:.2f} | {row.passes:.1f} | {row.state_bytes_per_parameter:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Print both tables: elementwise optimizers on BERT-base, all on two layers of its width."""
    device = jax.devices()[0]
    print(f"One update of BERT-base's parameters on {device.device_kind} ({device.platform})\n")
    print(table(measure()))
    print("\nTwo layers of BERT-base's width, vocabulary 2,048\n")
    small = bert_leaves(width=768, depth=2, vocab_size=2048)
    print(table(measure(small, repeats=3, chosen=optimizers() | heavy_optimizers())))


if __name__ == "__main__":
    main()
