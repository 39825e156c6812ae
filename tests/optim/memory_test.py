"""Passes over memory of a compiled update, and that no parameter is copied.

A pass is one reading or writing of every parameter. `optax.sgd` reads x and g and writes x: 3.
"""

import jax
import jax.numpy as jnp
import optax
import pytest

from sibert_jax.optim import (
    ROWS,
    hyperball,
    make_schedule,
    partition_by_invariance,
    scale_invariant_sgd,
    track_rotation,
)

SHAPES = {"a": (512, 256), "b": (512, 256), "c": (256, 512)}
PARAMS = {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in SHAPES.items()}
SIZE = sum(4 * x.size for x in PARAMS.values())


def compiled(tx):
    """Compile an update that donates its parameters and state, as a training loop does."""

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, PARAMS)
    return jax.jit(step, donate_argnums=(0, 1)).lower(PARAMS, state, PARAMS).compile()


def ours(**keywords):
    return scale_invariant_sgd(**{"learning_rate": 8e-4, "weight_decay": 1e-2} | keywords)


SCHEDULE = make_schedule("cosine", peak_value=1e-3, num_steps=9)
THIRD = {"a": True, "b": True, "c": False}
# name: (transform, most passes, most temporary memory in sizes of the parameters).
# x and g are read for the norms and again for the step.
PASSES = {
    "schedule": (ours(learning_rate=SCHEDULE), 5, 0),
    "labels": (ours(blocks=lambda params: {k: k for k in params}), 5, 0),
    "rows": (ours(blocks=lambda params: dict.fromkeys(params, ROWS)), 5, 0),
    "injected": (optax.inject_hyperparams(scale_invariant_sgd)(8e-4, 1e-2), 5, 0),
    "head of a third": (partition_by_invariance(ours(), optax.sgd(0.1), THIRD), (5 + 5 + 3) / 3, 0),
    "hyperball": (hyperball(optax.sgd(1.0), 1e-3), 5, 0),
    "hyperball of one sphere": (hyperball(optax.sgd(1.0), 1e-3, blocks="all"), 5, 0),
    "track_rotation": (track_rotation(optax.sgd(1.0)), 15, 1.34),
}


@pytest.mark.parametrize("name", PASSES)
def test_passes_over_memory(name):
    tx, most, temporaries = PASSES[name]
    program = compiled(tx)
    assert program.cost_analysis()["bytes accessed"] / SIZE < most + 0.1
    assert program.memory_analysis().temp_size_in_bytes < (temporaries + 0.05) * SIZE
    assert program.memory_analysis().alias_size_in_bytes >= SIZE
