"""Time and memory of one update on BERT's parameters: ours against optax's.

The parameters are donated, as in a training loop.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import measuring
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


def compiled(tx: optax.GradientTransformation, grads: dict) -> jax.stages.Compiled:
    """Compiles one update and its application, a function of (params, state, grads)."""

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, grads)
    return jax.jit(step, donate_argnums=(0, 1)).lower(grads, state, grads).compile()


def measure_group(
    group: str, shapes: dict, chosen: dict[str, optax.GradientTransformation], repeats: int
) -> list[measuring.Row]:
    """One row an optimizer, in milliseconds of an update and its application.

    Two further columns count the bytes that XLA's program reads and writes over those of the
    parameters, and the bytes of optimizer state over the number of parameters.

    Args:
      group: of all the rows.
      shapes: tree of shapes.
      chosen: name to optimizer, the baseline `optax.adamw` among them.
      repeats: timed steps of each, after one that is not.
    """
    grads = _random_tree(shapes, seed=1)
    size = sum(leaf.size for leaf in jax.tree.leaves(grads))
    timed, more = {}, {}
    for name, tx in chosen.items():
        step, state = compiled(tx, grads), tx.init(grads)
        state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        more[name] = {
            "passes over memory": step.cost_analysis()["bytes accessed"] / (4 * size),
            "state, bytes a parameter": state_bytes / size,
        }
        timed[name] = Updates(step, state, grads)
    return measuring.rows(measuring.in_turn(timed, repeats), BASELINE, group, more)


class Updates:
    """Updates from where the last call ended; a call returns milliseconds per update.

    Args:
      step: what `compiled` returned; parameters and state are donated.
      state: of the optimizer.
      grads: the gradient of every update.
      num_updates: of a call.
    """

    def __init__(self, step: jax.stages.Compiled, state, grads: dict, num_updates: int = 1):
        self._step, self._grads, self._num_updates = step, grads, num_updates
        params = jax.tree.map(lambda g: -0.5 * g, grads)
        self._after = jax.block_until_ready(step(params, state, grads))

    def __call__(self) -> float:
        start = time.perf_counter()
        for _ in range(self._num_updates):
            self._after = self._step(*self._after, self._grads)
        jax.block_until_ready(self._after)
        return 1e3 * (time.perf_counter() - start) / self._num_updates


def measure(*, repeats: int = 5) -> measuring.Result:
    """Elementwise optimizers on BERT-base, and all of them on two layers of its width."""
    base = measure_group("BERT-base", bert_base_leaves(), optimizers(), repeats)
    small = bert_leaves(width=768, depth=2, vocab_size=2048)
    every = optimizers() | heavy_optimizers()
    return measuring.Result(
        title="One update of BERT's parameters",
        unit="ms",
        more_is_better=False,
        baseline=BASELINE,
        rows=base + measure_group("two layers, vocabulary 2,048", small, every, repeats),
        notes=[],
    )
