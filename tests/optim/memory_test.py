"""What XLA makes of an update: how often it passes over memory, and that nothing is copied.

A pass is one reading or writing of every parameter. `optax.sgd` reads x and g and writes x: 3.
"""

import jax
import jax.numpy as jnp
import optax
import pytest

from sibert_jax.optim import (
    ROWS,
    clip_by_relative_global_norm,
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


def recipe(**keywords):
    return scale_invariant_sgd(**{"learning_rate": 8e-4, "weight_decay": 1e-2} | keywords)


RECIPES = {
    "numbers": recipe(),
    "schedule": recipe(learning_rate=make_schedule("cosine", peak_value=1e-3, num_steps=9)),
    "no clip": recipe(clip_factor=None),
    "labels": recipe(blocks=lambda params: {k: k for k in params}),
    "rows": recipe(blocks=lambda params: dict.fromkeys(params, ROWS)),
    "injected": optax.inject_hyperparams(scale_invariant_sgd)(8e-4, 1e-2),
    "clip, then optax.sgd": optax.chain(clip_by_relative_global_norm(0.1), optax.sgd(1e-3)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_reads_x_and_g_for_the_norms_and_again_for_the_step_and_writes_x(name):
    """Five passes, no temporary copy of anything, the new parameters in place of the old."""
    program = compiled(RECIPES[name])
    passes = program.cost_analysis()["bytes accessed"] / SIZE
    assert 4.99 < passes < 5.1
    assert program.memory_analysis().temp_size_in_bytes < 0.05 * SIZE
    assert program.memory_analysis().alias_size_in_bytes >= SIZE


def test_leaves_of_the_head_are_not_read_for_the_norms():
    tx = partition_by_invariance(recipe(), optax.sgd(0.1), {"a": True, "b": True, "c": False})
    passes = compiled(tx).cost_analysis()["bytes accessed"] / SIZE
    assert passes < (5 + 5 + 3) / 3 + 0.1


@pytest.mark.parametrize("make", [lambda tx: hyperball(tx, 1e-3), track_rotation])
def test_measuring_copies_no_parameter(make):
    """All sums are taken before x is overwritten in place."""
    text = compiled(make(optax.sgd(1.0))).as_text()
    assert " copy(" not in text


def test_the_sphere_reads_the_updates_once_more_for_their_largest_entry():
    passes = compiled(hyperball(optax.sgd(1.0), 1e-3)).cost_analysis()["bytes accessed"] / SIZE
    assert passes < 10.1
