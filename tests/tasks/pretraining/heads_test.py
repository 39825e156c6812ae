"""Heads: the loss against numpy, the normalized head's invariance, the tied table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.tasks.losses import cross_entropy
from sibert_jax.tasks.pretraining.task import Pretraining, PretrainingConfig
from tests.builders import model_config


def make_task(arch="sibert", head="untied", **keys):
    counts = np.arange(1, 41)
    return Pretraining(model_config(arch=arch), PretrainingConfig(head=head, **keys), (16,), counts)


@pytest.fixture
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


def test_cross_entropy_is_minus_the_log_probability():
    logits = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    labels = np.array([0, 3, 6, 2, 2])
    exp = np.exp(logits.astype(np.float64))
    wanted = -np.log(exp[np.arange(5), labels] / exp.sum(1))
    np.testing.assert_allclose(cross_entropy(logits, jnp.asarray(labels)), wanted, rtol=1e-5)


def test_sums_over_totals_are_the_means_of_what_counts(batch):
    task = make_task()
    params = jax.jit(task.init)(jax.random.key(0), batch)
    logits, nsp_logits = jax.jit(task.logits)(params, batch)
    sums = jax.jit(lambda *arguments: task.sums(*arguments, accuracy=True))(params, batch)
    totals = task.denominators(batch)
    losses = np.asarray(cross_entropy(logits, batch["masked_targets"]))
    counted = np.asarray(batch["masked_weights"]) > 0
    assert float(totals["mlm_loss"]) == counted.sum() == 10
    np.testing.assert_allclose(sums["mlm_loss"], losses[counted].sum(), rtol=1e-5)
    nsp = np.asarray(cross_entropy(nsp_logits, batch["nsp_labels"]))[:3]
    np.testing.assert_allclose(sums["nsp_loss"] / totals["nsp_loss"], nsp.mean(), rtol=1e-5)
    assert float(totals["dead_attention_rows"]) == (4 * 16 - 4) * 2 * 2


def test_the_unigram_prior_starts_from_the_frequencies(batch):
    task = make_task(nsp=False)
    params = jax.jit(task.init)(jax.random.key(0), batch)
    frequency = np.arange(2, 42) / np.arange(2, 42).sum()
    wanted = -np.log(frequency[np.asarray(batch["masked_targets"])])
    wanted = wanted[np.asarray(batch["masked_weights"]) > 0].sum()
    np.testing.assert_allclose(jax.jit(task.sums)(params, batch)["mlm_loss"], wanted, rtol=0.03)


@pytest.mark.parametrize("arch", ["sibert", "reparametrized"])
def test_with_the_normalized_head_the_whole_model_is_invariant(batch, arch):
    task = make_task(arch, "normalized")
    params = jax.jit(task.init)(jax.random.key(0), batch)
    assert all(jax.tree.leaves(task.invariance_mask(params)))
    loss = jax.jit(lambda params: task.sums(params, batch))
    for c in (0.125, 64.0):
        scaled = jax.tree.map(lambda x, c=c: x * c, params)
        jax.tree.map(np.testing.assert_array_equal, loss(scaled), loss(params))


def test_each_row_of_the_normalized_table_is_invariant(batch):
    task = make_task("sibert", "normalized")
    params = jax.jit(task.init)(jax.random.key(0), batch)
    scaled = jax.tree.map(lambda x: x, params)
    scaled["head"]["output"] = params["head"]["output"].at[7].mul(4.0)
    loss = jax.jit(lambda params: task.sums(params, batch)["mlm_loss"])
    one, other = (loss(p) for p in (params, scaled))
    np.testing.assert_array_equal(one, other)


def test_a_tied_head_has_no_table_of_its_own_and_is_not_invariant(batch):
    task = make_task("bert", "tied")
    params = jax.jit(task.init)(jax.random.key(0), batch)
    assert "output" not in params["head"]
    assert not any(jax.tree.leaves(task.invariance_mask(params)["head"]))
    doubled = {**params, "encoder": jax.tree.map(lambda x: 8 * x, params["encoder"])}
    loss = jax.jit(lambda params: task.sums(params, batch)["mlm_loss"])
    one, other = (float(loss(p)) for p in (params, doubled))
    assert abs(one - other) > 1e-2


def test_padding_and_what_follows_it_do_not_matter(batch):
    for arch in ("sibert", "bert"):
        task = make_task(arch, nsp=False)
        params = jax.jit(task.init)(jax.random.key(0), batch)
        changed = batch | {"tokens": batch["tokens"].at[1, 12:].set(5)}
        logits = jax.jit(task.logits)
        one, other = (logits(params, b)[0] for b in (batch, changed))
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_loss_in_blocks_has_the_same_gradient(batch):
    def gradient(loss_blocks):
        task = make_task(head="normalized", loss_blocks=loss_blocks)
        params = jax.jit(task.init)(jax.random.key(0), batch)
        return jax.jit(jax.value_and_grad(lambda p: task.sums(p, batch)["mlm_loss"]))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradient(1),
        gradient(2),
    )
