"""The benchmark of the optimizers measures what it says, on leaves of a few kilobytes."""

import jax
import numpy as np
import pytest

from benchmarks import optimizers

SHAPES = {"w": (64, 64), "b": (64,)}


def test_bert_base_has_its_110_million_parameters():
    leaves = jax.tree.leaves(optimizers.bert_base_leaves(), is_leaf=lambda x: isinstance(x, tuple))
    assert sum(int(np.prod(shape)) for shape in leaves) == 110_106_428


def test_recipe_keeps_no_state_per_parameter():
    chosen = {
        name: optimizers.optimizers()[name] for name in ("scale_invariant_sgd", "optax.adamw")
    }
    ours, adamw = optimizers.measure_group("tiny", SHAPES, chosen, repeats=1)
    state, passes = "state, bytes a parameter", "passes over memory"
    assert ours.more[state] * 4160 < 64  # a few scalars
    assert 8 <= adamw.more[state] < 8.1
    assert ours.more[passes] <= 0.6 * adamw.more[passes]
    assert adamw.ratio == 1


@pytest.mark.slow
def test_every_optimizer_takes_a_step():
    chosen = optimizers.optimizers() | optimizers.heavy_optimizers()
    rows = optimizers.measure_group("tiny", SHAPES, chosen, repeats=1)
    assert [row.name for row in rows] == list(chosen)
