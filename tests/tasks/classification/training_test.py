"""Predictions and scores; slow: new text, pairs memorized, a run resumed and extended."""

import copy
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from sibert_jax.configs import glue
from sibert_jax.errors import ConfigError
from sibert_jax.report.figures_of_merit import figures_of_merit
from sibert_jax.report.run_folder import read_run
from sibert_jax.tools.predict import predict
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import load_task
from tests.builders import random_params

from .conftest import LABELS, WORDS


def loaded(path):
    return json.loads(path.read_text())


def metrics_rows(directory) -> list[dict]:
    """All metrics but the clock's."""
    rows = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    clocks = ("perf/", "goodput/")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in rows]


def test_predictions_and_scores_are_of_the_same_outputs(config, write_pairs, tmp_path):
    config.data.path = config.data.valid_path = write_pairs("train.tsv")
    task, data = load_task(run_config(resolve(config)), progress=print)
    batches = [data.valid.batch(step, slice(None)) for step in range(len(data.valid))]
    params, evaluate = random_params(task.init, batches[0], std=0.5), jax.jit(task.eval_batch)
    results = jax.device_get([evaluate(params, batch) for batch in batches])
    mean = np.mean([result["outputs"] for result in results], axis=(0, 1))
    results = [{**r, "outputs": r["outputs"] - mean[None]} for r in results]  # of both classes
    (held_out,) = data.held_out
    scores = held_out.finish(results, tmp_path)
    header, *lines = (tmp_path / f"{held_out.name}.tsv").read_text().splitlines()
    assert header == "index\tprediction"
    keys, labels = zip(*(line.split("\t") for line in lines))
    assert keys == tuple(str(i) for i in range(32))
    assert set(labels) == set(LABELS)
    accuracy = np.mean([label == LABELS[i % 2] for i, label in enumerate(labels)])
    assert scores["accuracy"] == task.eval_metrics(results)["accuracy"] == accuracy


def test_epochs_fractions_and_the_vocabulary_become_sizes(config):
    config.train.num_epochs, config.model.vocab_size = 30.0, None
    run = run_config(resolve(config))
    assert run.model.vocab_size == 48
    assert (run.train.num_steps, run.optim.warmup_steps) == (0, 0)
    run = run.with_num_steps(steps_per_epoch=4)
    assert (run.train.num_steps, run.optim.warmup_steps) == (120, 12)
    assert run.optim.head.warmup_steps == 12
    assert run.with_num_steps(steps_per_epoch=4) == run


@pytest.fixture(scope="module")
def memorized(make_config, train_one, write_pairs, tmp_path_factory):
    """A run of 240 steps in batches of two lengths, its config and last state."""
    config = make_config()
    config.data.path = config.data.valid_path = write_pairs("train.tsv")
    config.data.test_path = write_pairs("test.tsv", num_examples=5, seed=1)
    config.data.num_seq_lens = 2
    # Memorized with the compiler's optimizations and without (with seeds 0 and 1 alike).
    config.model.width, config.model.ffn_width = 32, 64
    config.optim.learning_rate, config.train.num_epochs = 2e-2, 60.0
    config.train.log_every_steps = 10
    config.train.eval_every_steps = config.checkpoint.every_steps = 80
    directory = tmp_path_factory.mktemp("runs") / "memorized"
    with pytest.MonkeyPatch.context() as patch:
        # The batches are too few for two lengths to be worth compiling.
        patch.setattr("sibert_jax.data.sequences.PRICE_IN_BATCHES", 0)
        yield config, directory, train_one(config, directory)


@pytest.mark.slow
def test_32_pairs_are_memorized_in_batches_of_two_lengths(memorized):
    config, directory, state = memorized
    assert int(state.step) == 240
    results = loaded(directory / "results.json")
    train, test = results["held_out"].values()
    assert train["accuracy"] == results["best"]["eval/accuracy"] == 1.0
    assert test["examples_per_second"] > 0
    _, data = load_task(run_config(resolve(config)), progress=print)
    shapes = [data.train.batch(step)["tokens"].shape for step in range(240)]
    assert len(set(shapes)) == 2
    # The report counts the tokens as they were padded.
    assert figures_of_merit(read_run(directory)).tokens == sum(r * length for r, length in shapes)


@pytest.mark.slow
def test_new_text_is_labeled_as_in_training(memorized, tmp_path, capsys):
    config, directory, _ = memorized
    shutil.copytree(directory, tmp_path / "run")
    settings = loaded(directory / "config.json")
    settings["model"]["attention_impl"] = "pallas"  # of a run on TPUs
    (tmp_path / "run/config.json").write_text(json.dumps(settings))
    header, *rows = predict(tmp_path / "run", config.data.path, print, jax.devices()[:1])
    classes = "p(entailment)\tp(not_entailment)"
    assert header == f"prediction\tprobability\t{classes}\tsentence1\tsentence2"
    texts = pathlib.Path(config.data.path).read_text().splitlines()[1:]
    pairs = [text.split("\t") for text in texts]
    fields = [row.split("\t") for row in rows]
    assert [(f[0], f[4], f[5]) for f in fields] == [(label, a, b) for a, b, label in pairs]
    assert "at step 240" in capsys.readouterr().out


@pytest.mark.slow
def test_a_resumed_run_ends_as_the_straight_one(memorized, train_one, tmp_path):
    config, straight, state = memorized
    run = shutil.copytree(straight, tmp_path / "run")
    (run / "results.json").unlink()
    shutil.rmtree(run / "predictions")
    for step in (160, 240):  # as if killed after step 80 was saved
        (path,) = run.glob(f"checkpoints/*{step}")
        shutil.rmtree(path)
    resumed = train_one(config, run)
    jax.tree.map(np.testing.assert_array_equal, state.params, resumed.params)
    assert metrics_rows(run) == metrics_rows(straight)
    for path in (straight / "predictions").iterdir():
        assert (run / "predictions" / path.name).read_text() == path.read_text()


@pytest.mark.slow
def test_a_finished_run_is_extended_by_epochs(memorized, train_one, tmp_path, capfd):
    config, directory, _ = memorized
    shutil.copytree(directory, tmp_path / "run")
    longer = copy.deepcopy(config)
    longer.train.num_epochs = 61.0
    sentence = "train.num_epochs=60.0, now it is 61.0, .*optim.schedule='linear'.*extend=True"
    with pytest.raises(ConfigError, match=sentence):
        train_one(longer, tmp_path / "run")
    longer.train.extend = True
    assert int(train_one(longer, tmp_path / "run").step) == 244
    said = capfd.readouterr().err
    assert "the run of 240 steps becomes one of 244: η at step 240 goes from 0 to 0.000364" in said
    results = loaded(tmp_path / "run/results.json")
    assert results["step"] == results["last"]["step"] == 244
    assert results["best"] == loaded(directory / "results.json")["best"]
    longer.train.num_epochs = 10.0
    with pytest.raises(ConfigError, match="train.num_epochs gives 40 steps, but the newest check"):
        train_one(longer, tmp_path / "run")
    assert loaded(tmp_path / "run/config.json")["train"]["num_epochs"] == 61.0


@pytest.mark.slow
def test_the_recipe_trains_the_encoder_by_sgd(config, train_one, write_pairs, tmp_path):
    config.data.path = config.data.valid_path = write_pairs("train.tsv")
    glue.use_recipe(config)
    config.optim.eta_lambda = 1e-3
    config.train.num_epochs, config.train.log_every_steps = 20.0, 10
    train_one(config, tmp_path / "run")
    rows = [row for row in metrics_rows(tmp_path / "run") if "optim/equilibrium_gap" in row]
    assert len(rows) == 8
    assert max(row["optim/euler_residual"] for row in rows) < 1e-4


def majority(folder, name: str, count: int, seed: int) -> str:
    """Nine words a line; the label says whether most are of the first half of WORDS."""
    rng, lines = np.random.default_rng(seed), ["sentence\tlabel"]
    for _ in range(count):
        indices = rng.integers(0, len(WORDS), 9)
        label = int(np.sum(indices < len(WORDS) // 2) > 4)
        lines.append(f"{' '.join(WORDS[i] for i in indices)}\t{label}")
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sibert", "bert"])
def test_the_default_rates_learn_a_small_task(arch, vocab, train_one, tmp_path):
    config = glue.get_config(f"task=sst2,arch={arch}")
    config.data.path = majority(tmp_path, "train.tsv", 2_000, seed=0)
    config.data.valid_path = majority(tmp_path, "dev.tsv", 400, seed=1)
    config.data.vocab, config.model.vocab_size = str(vocab), 48
    config.train.eval_every_steps = 0
    config.train.compilation_cache_dir = ""
    train_one(config, tmp_path / "run")
    assert loaded(tmp_path / "run/results.json")["last"]["eval/accuracy"] > 0.9
