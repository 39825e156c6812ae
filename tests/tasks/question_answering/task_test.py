"""The model's loss against numpy, what counts in it, and its invariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.homogeneity import assert_scale_invariant
from sibert_jax.tasks.question_answering.task import QuestionAnswering, QuestionAnsweringConfig
from tests.builders import model_config, random_params

SETTINGS = {"max_query_len": 4, "doc_stride": 4, "max_answer_len": 5, "n_best": 3}


def make_task(arch="sibert"):
    return QuestionAnswering(model_config(arch=arch), QuestionAnsweringConfig(**SETTINGS), (16,))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    position = np.arange(16)[None]
    length = np.array([[16], [12], [16], [16]])
    context = (position > 4) & (position < length - 1)
    return {
        "tokens": jnp.asarray(rng.integers(5, 40, (4, 16)), jnp.int32),
        "segments": jnp.asarray(position > 4, jnp.int32).repeat(4, 0),
        "attention_mask": jnp.asarray(position < length),
        "may_start": jnp.asarray(context & (position < 9)),
        "may_end": jnp.asarray(context),
        "answer_first": jnp.asarray([6, 0, 5, 7], jnp.int32),
        "answer_last": jnp.asarray([7, 0, 5, 9], jnp.int32),
        "example_index": jnp.arange(4, dtype=jnp.int32),
        "example_weights": jnp.ones(4).at[3].set(0.0),
    }


@pytest.fixture(scope="module")
def compute(batch):
    """Logits, sums and evaluation of a batch, from one program."""
    task = make_task()
    params = random_params(task.init, batch)

    @jax.jit
    def compute(params, batch):
        args = (params, batch)
        return task.apply(*args)[0], task.sums(*args), task.eval_batch(*args)

    return lambda batch: jax.device_get(compute(params, batch))


def test_the_loss_is_the_mean_of_start_and_end(batch, compute):
    (start, end), sums, _ = compute(batch)
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    may_end, total = np.asarray(batch["may_end"]), 0.0
    for i in range(3):  # the fourth row has weight 0
        places = [0, *np.flatnonzero(may_end[i])]
        for logits, name in ((start, "answer_first"), (end, "answer_last")):
            right = logits[i, int(batch[name][i])]
            total += 0.5 * (np.log(np.exp(logits[i, places]).sum()) - right)
    totals = make_task().denominators(batch)
    np.testing.assert_allclose(sums["span_loss"], total, rtol=1e-5)
    assert float(totals["span_loss"]) == 3.0
    assert float(totals["dead_attention_rows"]) == (4 * 16 - 4) * 2 * 2
    _, other, _ = compute(batch | {"tokens": batch["tokens"].at[1, 12:].set(7)})  # in the padding
    jax.tree.map(np.testing.assert_array_equal, sums, other)


@pytest.mark.parametrize("arch", ["sibert", pytest.param("reparametrized", marks=pytest.mark.slow)])
def test_the_loss_is_invariant_to_the_scale_of_the_encoder_only(batch, arch):
    task = make_task(arch)
    params = random_params(task.init, batch)
    mask = task.invariance_mask(params)
    sums = jax.jit(task.sums)

    def loss(params, batch):
        return sums(params, batch)["span_loss"]

    assert_scale_invariant(loss, params, batch, mask=mask)
    with pytest.raises(ValueError, match="not certified"):
        assert_scale_invariant(loss, params, batch, mask=jax.tree.map(lambda _: True, mask))
    for c in np.float32([0.125, 64.0]):
        scaled = params | {"encoder": jax.tree.map(lambda x, c=c: x * c, params["encoder"])}
        np.testing.assert_array_equal(loss(scaled, batch), loss(params, batch))


def test_an_evaluation_returns_spans_of_the_context(batch, compute):
    (start, end), _, result = compute(batch)
    shapes = {name: value.shape for name, value in result.items()}
    assert shapes == {
        **dict.fromkeys(("window", "counts", "loss", "null_score"), (4,)),
        **dict.fromkeys(("start_logit", "end_logit", "score_BC", "first_BC", "last_BC"), (4, 3)),
    }
    np.testing.assert_allclose(result["null_score"], start[:, 0] + end[:, 0], rtol=1e-5)
    row, first, last = np.arange(4)[:, None], result["first_BC"], result["last_BC"]
    assert np.asarray(batch["may_start"])[row, first].all()
    assert np.asarray(batch["may_end"])[row, last].all()
    assert np.all((first <= last) & (last < first + 5))
    np.testing.assert_allclose(result["start_logit"], start[row, first], rtol=1e-5)
    np.testing.assert_allclose(result["end_logit"], end[row, last], rtol=1e-5)
    score = result["start_logit"] + result["end_logit"]
    np.testing.assert_allclose(result["score_BC"], score, rtol=1e-5)
    assert result["counts"].tolist() == [True, True, True, False]
