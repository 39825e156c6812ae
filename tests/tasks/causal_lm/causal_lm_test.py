"""Left-to-right language models: examples, loss, bits per byte, continuations, a run of each."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sibert_jax
from sibert_jax.configs import gpt
from sibert_jax.data import DataError, NextTokenBatches, NextTokenExamples
from sibert_jax.errors import ConfigError
from sibert_jax.homogeneity import analyse
from sibert_jax.tasks.causal_lm.generation import choose, generate
from sibert_jax.tasks.causal_lm.new_text import check_prompt
from sibert_jax.tasks.causal_lm.task import CausalLM, CausalLMConfig
from sibert_jax.tools.predict import predict
from sibert_jax.train.config import default_config, run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import train
from tests.builders import model_config, random_params
from tests.data.conftest import FIRST_ORDINARY, make_corpus, make_tokenizer

COUNTS = np.arange(40)
ROWS = np.random.default_rng(0).integers(5, 40, (4, 17)).astype(np.int32)
BATCH = {
    "tokens": jnp.asarray(ROWS[:, :-1]),
    "targets": jnp.asarray(ROWS[:, 1:]),
    "segments": jnp.zeros((4, 16), jnp.int32),
    "attention_mask": jnp.ones((4, 16), bool),
    "example_weights": jnp.asarray([1.0, 1.0, 1.0, 0.0]),
}
RECIPES = {"sigpt": "invariant", "gpt": "tied"}
QK_NORM = "sigpt_qk_norm"


def make_task(arch="sigpt", tokens_per_byte=0.25, model=(), **keys):
    task = CausalLMConfig(head=RECIPES.get(arch, "invariant"), **keys)
    cfg = model_config(arch=arch, **dict(model))
    made = CausalLM(cfg, task, (16,), COUNTS, tokens_per_byte)
    return made, jax.tree.map(jnp.asarray, random_params(made.init, BATCH, std=0.3))


def test_examples_are_the_text_and_what_follows_each_token():
    corpus = make_corpus([[5, 4], [6], [12]])
    tokenizer = make_tokenizer(27)
    examples = NextTokenExamples(corpus, 8, tokenizer)
    batches = NextTokenBatches(examples, global_batch_size=2, seed=0, shuffle=False)
    found = [batches.batch(step) for step in range(len(batches))]
    rows = {
        tuple(row) for batch in found for row in np.c_[batch["tokens"], batch["targets"][:, -1]]
    }
    sep, first = tokenizer.sep_id, FIRST_ORDINARY
    stream = [*range(first, first + 9), sep, *range(first + 9, first + 15), sep]
    stream += range(first + 15, first + 27)
    assert rows == {tuple(stream[i : i + 9]) for i in (0, 8, 16)}
    for batch in found:
        np.testing.assert_array_equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
    assert np.concatenate([batch["example_weights"] for batch in found]).tolist() == [1, 1, 1, 0]
    with pytest.raises(DataError, match="too few for one example"):
        NextTokenExamples(corpus, 29, tokenizer)
    numbered = NextTokenBatches(examples, global_batch_size=2, seed=0, shuffle=False, start_id=sep)
    for step, batch in enumerate(found):
        documents = numbered.batch(step)["documents"]
        assert (documents[:, 0] == 0).all()
        np.testing.assert_array_equal(np.diff(documents) == 1, batch["tokens"][:, 1:] == sep)


def test_with_segments_no_token_sees_another_document():
    task, params = make_task(boundaries="segments", model={"positions": "rotary"})
    assert task.abstract_batch(4, 16)["documents"].shape == (4, 16)
    documents = jnp.asarray([[0] * 6 + [1] * 10] * 4)
    run = jax.jit(
        lambda tokens: task.logits(params, {**BATCH, "tokens": tokens, "documents": documents})
    )
    found, other = run(BATCH["tokens"]), run(BATCH["tokens"].at[:, :6].set(7))
    np.testing.assert_array_equal(other[:, 6:], found[:, 6:])
    assert (other[:, :6] != found[:, :6]).any()


@pytest.mark.parametrize("arch", RECIPES)
def test_the_loss_is_over_all_positions_in_nats_and_bits(arch):
    task, params = make_task(arch, loss_blocks=3)

    @jax.jit
    def run(params):
        return task.logits(params, BATCH), task.eval_batch(params, BATCH)

    logits, evaluated = run(params)
    x = np.asarray(logits, np.float64)
    log_sums = np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1)) + x.max(-1)
    losses = log_sums - np.take_along_axis(x, ROWS[:, 1:, None], 2)[..., 0]
    metrics = task.eval_metrics([evaluated, evaluated])
    assert metrics["loss"] == pytest.approx(losses[:3].mean(), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["bits_per_byte"] == pytest.approx(metrics["loss"] / math.log(2) / 4)
    if arch == "gpt":  # the table is the output table, and the head has no parameters
        assert list(params) == ["encoder"]


def test_sigpt_is_invariant_with_its_head_and_what_breaks_gpt_is_named():
    task, params = make_task(model={"positions": "rotary"})
    assert all(jax.tree.leaves(task.invariance_mask(params)))
    gradient = jax.jit(jax.value_and_grad(lambda p: task.sums(p, BATCH)["token_loss"]))
    loss, grads = gradient(params)
    for c in (2.0**-9, 2.0**5):
        scaled_loss, scaled = gradient(jax.tree.map(lambda x, c=c: x * np.float32(c), params))
        assert scaled_loss == loss
        jax.tree.map(lambda a, b, c=c: np.testing.assert_array_equal(a * c, b), scaled, grads)
    assert analyse(lambda p: task.sums(p, BATCH)["token_loss"], params).is_invariant()
    task, params = make_task("gpt")
    report = analyse(lambda p: task.sums(p, BATCH)["token_loss"], params)
    assert not report.is_invariant()
    assert "norm.py" in str(report.obstruction())


def prompts_of(lengths):
    mask = np.arange(9)[None] < np.array(lengths)[:, None]
    return {
        "tokens": jnp.asarray(np.where(mask, ROWS[: len(lengths), :9], 0)),
        "attention_mask": jnp.asarray(mask),
        "example_index": jnp.arange(len(lengths), dtype=jnp.int32),
    }


@pytest.mark.parametrize(
    ("arch", "model"),
    [
        ("sigpt", {}),
        pytest.param("gpt", {}, marks=pytest.mark.slow),
        pytest.param("sigpt", {"attention_window": 3}, marks=pytest.mark.slow),
        pytest.param("sigpt", {"positions": "rotary"}, marks=pytest.mark.slow),
        pytest.param(QK_NORM, {"positions": "rotary"}, marks=pytest.mark.slow),
        pytest.param("gpt", {"scan_layers": False}, marks=pytest.mark.slow),
        pytest.param("sigpt", {"attention_impl": "blockwise"}, marks=pytest.mark.slow),
    ],
)
def test_from_the_cache_or_all_anew_the_tokens_are_the_same(arch, model):
    task, params = make_task(arch, model=model, max_new_tokens=5)
    lengths = (9, 2, 6)
    run = functools.partial(generate, task.model, task.task, end_id=1, max_tokens=13)
    found = np.asarray(jax.jit(run)(params, prompts_of(lengths), 0))
    logits = jax.jit(task.logits)
    for row, length in enumerate(lengths):
        tokens = ROWS[row, :length].tolist()
        while len(tokens) < min(length + 5, 13) and 1 not in tokens:
            padded = np.zeros((1, 16), np.int32)
            padded[0, : len(tokens)] = tokens
            one = {name: x[:1] for name, x in BATCH.items()} | {"tokens": jnp.asarray(padded)}
            tokens.append(int(np.argmax(logits(params, one)[0, len(tokens) - 1])))
        tokens += [1] * (13 - len(tokens))
        assert found[row].tolist() == tokens


def test_draws_are_of_the_likeliest_tokens_and_follow_seed_row_and_place():
    logits = jnp.log(jnp.asarray([[0.4, 0.3, 0.2, 0.1]] * 3000))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(3000))

    def shares(place=0, **task):
        drawn = jax.jit(choose, static_argnums=3)(logits, keys, place, CausalLMConfig(**task))
        return np.bincount(drawn, minlength=4) / 3000

    assert shares().tolist() == [1, 0, 0, 0]
    hot = np.sqrt([0.4, 0.3, 0.2, 0.1])
    for task, wanted in [
        ({"temperature": 2.0}, hot / hot.sum()),
        ({"temperature": 1.0, "top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
    ]:
        np.testing.assert_allclose(shares(**task), wanted, atol=0.04)
    one, again, other = (shares(place, temperature=2.0).tolist() for place in (0, 0, 1))
    assert one == again != other


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A short run on little text."""
    folder = tmp_path_factory.mktemp("causal_lm")
    words = ["the", "value", "of", "an", "object", "is", "its", "name", "and", "type"]
    rng = np.random.default_rng(0)
    documents = [
        "\n".join(" ".join(rng.choice(words, 30)) + "." for _ in range(4)) for _ in range(12)
    ]
    (folder / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    config = gpt.get_config()
    config.model.update(
        vocab_size=80, max_len=32, width=16, ffn_width=32, depth=1, scan_layers=False
    )
    config.data.update(path=str(folder / "text.txt"), cache_dir=str(folder / "cache"), seq_len=24)
    config.data.valid_fraction = 0.25
    config.optim.update(eta_lambda=0.0, learning_rate=1.0, weight_decay=1e-3)
    config.train.update(num_steps=4, global_batch_size=8, eval_every_steps=0, eval_batches=0)
    config.train.compilation_cache_dir = ""
    config.model.positions, config.task.boundaries = "rotary", "segments"
    with jax.numpy_dtype_promotion("standard"):
        train(config, folder / "run", jax.devices()[:1])
    return folder / "run"


@pytest.mark.slow
def test_a_run_is_evaluated_in_bits_per_byte_and_continues_prompts(workdir, tmp_path):
    last = json.loads((workdir / "results.json").read_text())["last"]
    text = (workdir.parent / "text.txt").read_text()
    assert 0 < last["eval/bits_per_byte"] < last["eval/loss"] / math.log(2)
    assert last["eval/perplexity"] == pytest.approx(math.exp(last["eval/loss"]))
    assert len(text) > 0
    prompts = ["the value of an", "an object is"]
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"{prompt}\n" for prompt in prompts))
    key = "--config.task.max_new_tokens=3"
    lines = predict(workdir, str(path), print, jax.devices()[:1], overrides=[key])
    model = sibert_jax.load(workdir)
    assert lines == [p + model.generate(p, 3) for p in prompts]
    assert model.generate(prompts, 3) == [model.generate(p, 3) for p in prompts]
    drawn = {model.generate(prompts[0], 8, temperature=2.0, seed=seed) for seed in range(4)}
    assert len(drawn) > 1
    with pytest.raises(DataError, match=r"prompt 0 has 40 tokens"):
        model.generate("the " * 40)
    with pytest.raises(ConfigError, match="task.max_new_tokens=0 must be at least 1"):
        model.generate("the", 0)
    with pytest.raises(ConfigError, match=r"fill_mask\(\) needs a model of pretraining"):
        model.fill_mask("the [MASK]")
    path.write_text("the\n\n")
    with pytest.raises(DataError, match=r"prompts\.txt, line 2 is an empty prompt"):
        predict(workdir, str(path), print)
    with pytest.raises(ConfigError, match="with --predict, only keys that affect the answers"):
        predict(workdir, str(path), print, overrides=["--config.task.head=tied"])


def test_a_prompt_is_neither_empty_nor_too_long_to_be_continued():
    check_prompt("prompt 0", np.arange(23), 24)
    with pytest.raises(DataError, match="prompt 0 is an empty prompt; write at least one word"):
        check_prompt("prompt 0", np.arange(0), 24)
    with pytest.raises(DataError, match=r"prompt 0 has 24 tokens.*reads 24 at most.*to 23 tokens"):
        check_prompt("prompt 0", np.arange(24), 24)


@pytest.mark.parametrize(
    ("variant", "million"),
    [("mini", 1.49), ("mini_adamw", 1.46), ("small", 125), ("small_adamw", 124.4)],
)
def test_every_variant_is_a_run(variant, million):
    config = gpt.get_config(variant)
    config.data.path = "text/*.txt"
    run = run_config(resolve(config))
    task = run.task_type.make(run.model, run.task, (run.data.seq_len,))
    params = jax.eval_shape(task.init, jax.random.key(0), task.abstract_batch(1, run.data.seq_len))
    assert sum(x.size for x in jax.tree.leaves(params)) / 1e6 == pytest.approx(million, rel=0.03)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.arch": "bert"}, r"needs an encoder .* only itself and earlier ones; .*sigpt"),
        ({"task.head": "tied"}, r'task\.head="tied" makes the logits grow'),
    ],
)
def test_wrong_combinations_are_refused(changes, said):
    config = gpt.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=said):
        run_config(resolve(config))
    config = default_config()
    config.model.arch = "sigpt"
    with pytest.raises(ConfigError, match="needs an encoder in .* the tokens on both sides"):
        run_config(resolve(config))
