"""Heads: the loss against numpy, the invariant head, the tied table, loss by frequency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.tasks.losses import cross_entropy
from sibert_jax.tasks.pretraining.task import Pretraining, PretrainingConfig
from tests.builders import model_config, random_params

FREQUENCY = np.arange(2, 42) / np.arange(2, 42).sum()


def make_task(arch="sibert", head="untied", **keys):
    task = PretrainingConfig(head=head, **keys)
    return Pretraining(model_config(arch=arch), task, (16,), 820 * FREQUENCY - 1)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "tokens": jnp.asarray(rng.integers(0, 40, (4, 16)), jnp.int32),
        "segments": jnp.asarray(np.arange(16)[None] > 8, jnp.int32).repeat(4, 0),
        "attention_mask": jnp.ones((4, 16), bool).at[1, 12:].set(False),
        "masked_positions": jnp.asarray(rng.integers(0, 12, (4, 3)), jnp.int32),
        "masked_targets": jnp.asarray(rng.integers(0, 40, (4, 3)), jnp.int32),
        "masked_weights": jnp.ones((4, 3)).at[2, 1:].set(0.0),
        "example_weights": jnp.ones(4).at[3].set(0.0),
        "nsp_labels": jnp.asarray([0, 1, 1, 0], jnp.int32),
    }


def with_other_padding(batch):
    return batch | {"tokens": batch["tokens"].at[1, 12:].set(5)}


def scaled(tree, c):
    return jax.tree.map(lambda x: x * np.float32(c), tree)


def test_losses_are_sums_over_what_counts_from_the_prior_on(batch):
    task = make_task()
    params = jax.jit(task.init)(jax.random.key(0), batch)

    @jax.jit
    def compute(*args):
        return task.logits(*args), task.sums(*args), task.eval_batch(*args)

    (logits, nsp_logits), found, evaluated = compute(params, batch)
    totals, targets = task.denominators(batch), np.asarray(batch["masked_targets"])
    exp = np.exp(np.asarray(logits, np.float64))
    losses = -np.log(np.take_along_axis(exp, targets[..., None], 2)[..., 0] / exp.sum(2))
    counted = np.asarray(batch["masked_weights"]) > 0
    assert float(totals["mlm_loss"]) == counted.sum() == 10
    np.testing.assert_allclose(found["mlm_loss"], losses[counted].sum(), rtol=1e-5)
    nsp = np.asarray(cross_entropy(nsp_logits, batch["nsp_labels"]))[:3]
    np.testing.assert_allclose(found["nsp_loss"] / totals["nsp_loss"], nsp.mean(), rtol=1e-5)
    assert float(totals["dead_attention_rows"]) == (4 * 16 - 4) * 2 * 2
    # A new model predicts the frequencies, whatever the padding is.
    prior = -np.log(FREQUENCY[targets])[counted].sum()
    np.testing.assert_allclose(found["mlm_loss"], prior, rtol=0.03)
    (other, _), *_ = compute(params, with_other_padding(batch))
    np.testing.assert_allclose(logits, other, atol=1e-6)
    # Also by fifths of the text, that of the most frequent tokens first.
    metrics, order = task.eval_metrics([evaluated]), np.argsort(-FREQUENCY)
    middle = np.cumsum(FREQUENCY[order]) - FREQUENCY[order] / 2
    fifths = np.empty(40, int)
    fifths[order] = 5 * middle
    for i in range(5):
        inside = (fifths[targets] == i) & counted
        wanted = losses[inside].mean() if inside.any() else 0
        np.testing.assert_allclose(metrics[f"mlm_loss_fifth_{i + 1}"], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("arch", "table_norm"),
    [
        ("sibert", "rows"),
        ("sibert_sandwich", "table"),
        *(pytest.param("reparametrized", x, marks=pytest.mark.slow) for x in ("rows", "table")),
    ],
)
def test_with_the_invariant_head_the_whole_model_is(batch, arch, table_norm):
    """The loss in blocks of positions is the same."""
    task = make_task(arch, "invariant", table_norm=table_norm)
    params = random_params(task.init, batch)
    assert all(jax.tree.leaves(task.invariance_mask(params)))
    in_blocks = make_task(arch, "invariant", table_norm=table_norm, loss_blocks=2)
    sums = jax.jit(lambda params: (task.sums(params, batch), in_blocks.sums(params, batch)))
    wanted, blocks = sums(params)
    np.testing.assert_allclose(blocks["mlm_loss"], wanted["mlm_loss"], rtol=1e-5)
    for c in (0.125, 64.0):
        jax.tree.map(np.testing.assert_array_equal, sums(scaled(params, c))[0], wanted)


def test_the_invariant_head_is_a_cosine_and_the_log_frequency(batch):
    task = make_task(head="invariant", logit_scale=5.0)
    params = random_params(task.init, batch)
    params["head"]["logit_scale"] = jnp.array([1.0, 3.0])  # cos 2φ = -0.8
    (projection, nsp), _ = jax.jit(task.apply)(params, batch)
    scale = 5 * 4**-0.8
    cosines = (np.asarray(projection.logits(), np.float64) - np.log(FREQUENCY)) / scale
    assert np.abs(cosines).max() <= 1 + 1e-6
    table = np.float64(params["encoder"]["embed"]["token"])
    rows = table / np.linalg.norm(table, axis=1, keepdims=True)
    h = np.linalg.lstsq(rows, cosines.reshape(-1, len(rows)).T, rcond=None)[0]
    np.testing.assert_allclose(np.linalg.norm(h, axis=0), 1, rtol=1e-4)
    assert np.abs(nsp).max() <= 5


def test_a_tied_head_has_no_table_of_its_own_and_is_not_invariant(batch):
    task = make_task("bert", "tied")
    params = random_params(task.init, batch)
    assert "output" not in params["head"]
    assert not any(jax.tree.leaves(task.invariance_mask(params)["head"]))
    sums = jax.jit(task.sums)
    other = {**params, "encoder": scaled(params["encoder"], 8)}
    one, other = (float(sums(p, batch)["mlm_loss"]) for p in (params, other))
    assert abs(one - other) > 1e-2
    assert float(sums(params, with_other_padding(batch))["mlm_loss"]) == pytest.approx(one)
