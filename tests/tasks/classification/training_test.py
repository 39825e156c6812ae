"""Fine-tuning runs from their config to their predictions."""

import copy
import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest
from sibert_jax.train.session import Session

from sibert_jax.data import DataError
from sibert_jax.errors import ConfigError
from sibert_jax.report.figures_of_merit import figures_of_merit
from sibert_jax.report.run import read_run
from sibert_jax.tools.predict import predict
from sibert_jax.train import build, sharding
from tests.tasks.classification.conftest import make_config, train_one
from tests.train.bad_steps_test import NoCheckpoints

LABELS = ("entailment", "not_entailment")


def loaded(path):
    return json.loads(path.read_text())


def metrics_rows(directory) -> list[dict]:
    """All metrics but the clock's."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    clocks = ("perf/", "goodput/")
    return [{k: v for k, v in json.loads(r).items() if not k.startswith(clocks)} for r in lines]


def stop_at(monkeypatch, number: int):
    """Sends SIGTERM the first time that a step is taken."""
    original, left = Session.step, {number}

    def step(self, state, batch):
        state, report = original(self, state, batch)
        if int(state.step) in left:
            left.clear()
            os.kill(os.getpid(), signal.SIGTERM)
        return state, report

    monkeypatch.setattr(Session, "step", step)


@pytest.fixture(scope="module", autouse=True)
def _lengths_are_free():
    """The batches are too few for two lengths to be worth compiling."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sibert_jax.data.sequences.PRICE_IN_BATCHES", 0)
        yield


@pytest.fixture(scope="module")
def finished(vocab, write_pairs, tmp_path_factory):
    """A run of SIBERT and LAMB, in batches of two lengths, and its config and last state."""
    config = make_config(vocab)
    config.data.path = config.data.valid_path = write_pairs("train.tsv", LABELS)
    config.data.test_path = write_pairs("test.tsv", LABELS, num_examples=5, seed=1)
    config.data.num_seq_lens = 2
    # Learnt by heart with the compiler's optimisations and without (with seeds 0 and 1 alike).
    config.model.width, config.model.ffn_width = 32, 64
    config.optim.learning_rate, config.train.num_epochs = 2e-2, 60.0
    config.train.eval_every_steps = 80
    directory = tmp_path_factory.mktemp("runs") / "finished"
    return config, directory, train_one(config, directory)


def test_32_pairs_are_learnt_and_predictions_written_as_glue_wants_them(finished):
    config, directory, state = finished
    assert int(state.step) == 240
    results = loaded(directory / "results.json")
    assert results["step"] == 240
    learnt, chance = results["held_out"].values()
    assert learnt["accuracy"] == results["best"]["eval/accuracy"] == 1.0
    assert min(learnt["examples_per_second"], chance["examples_per_second"]) > 0
    data = pathlib.Path(config.data.path).parent.name
    lines = (directory / f"predictions/{data}_train.tsv").read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{i}\t{LABELS[i % 2]}" for i in range(32))]
    lines = (directory / f"predictions/{data}_test.tsv").read_text().splitlines()
    hits = sum(line == f"{i}\t{LABELS[i % 2]}" for i, line in enumerate(lines[1:]))
    assert chance["accuracy"] == hits / 5


def test_the_report_counts_the_tokens_of_batches_as_they_were_padded(finished):
    config, directory, _ = finished
    _, data = build.load_task(build.run_config(config), progress=print)
    shapes = [data.train.batch(step)["tokens"].shape for step in range(240)]
    assert len(set(shapes)) == 2
    tokens = sum(rows * length for rows, length in shapes)
    assert figures_of_merit(read_run(directory)).tokens == tokens


def test_a_length_is_compiled_when_it_is_first_met(finished):
    config, _, _ = finished
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    run = build.run_config(config)
    session = Session(run, mesh, *build.load_task(run, progress=print))
    first = session.batch(0)
    batches = map(session.batch, range(1, 240))
    other = next(b for b in batches if b["tokens"].shape != first["tokens"].shape)
    with jax.numpy_dtype_promotion("standard"):
        state = session.start(NoCheckpoints())
    assert [session.is_compiled(batch) for batch in (first, other)] == [True, False]
    with jax.numpy_dtype_promotion("standard"):
        session.step(state, other)
    assert session.is_compiled(other)


def test_a_stopped_run_ends_as_the_straight_one(finished, tmp_path, monkeypatch):
    config, straight, state = finished
    stop_at(monkeypatch, 53)
    assert int(train_one(config, tmp_path).step) == 53
    assert not (tmp_path / "results.json").exists()
    resumed = train_one(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state.params, resumed.params)
    assert metrics_rows(tmp_path) == metrics_rows(straight)
    for path in (straight / "predictions").iterdir():
        assert (tmp_path / "predictions" / path.name).read_text() == path.read_text()


def test_a_finished_run_goes_on_for_more_epochs(finished, tmp_path, capfd):
    config, directory, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    longer = copy.deepcopy(config)
    longer.train.num_epochs = 61.0
    sentence = "train.num_epochs=60.0, now it is 61.0, .*optim.schedule='linear'.*extend=True"
    with pytest.raises(ConfigError, match=sentence):
        train_one(longer, tmp_path / "run")
    longer.train.extend = True
    assert int(train_one(longer, tmp_path / "run").step) == 244
    assert "the run of 240 steps becomes one of 244: η at step 240 goes from 0 to 0.000364" in (
        capfd.readouterr().err
    )
    results = loaded(tmp_path / "run/results.json")
    assert results["step"] == results["last"]["step"] == 244
    assert results["best"] == loaded(directory / "results.json")["best"]
    longer.train.num_epochs = 10.0
    with pytest.raises(ConfigError, match="train.num_epochs says 40 steps, and the newest check"):
        train_one(longer, tmp_path / "run")
    assert loaded(tmp_path / "run/config.json")["train"]["num_epochs"] == 61.0


def test_the_run_says_of_new_text_what_it_has_learnt(finished, capsys):
    config, directory, _ = finished
    header, *rows = predict(directory, config.data.path, print, jax.devices()[:1])
    assert header == "prediction\tsentence1\tsentence2"
    known = [r.split("\t") for r in pathlib.Path(config.data.path).read_text().splitlines()[1:]]
    assert rows == ["\t".join([label, first, second]) for first, second, label in known]
    assert "at step 240" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_predicts(finished, tmp_path):
    config, directory, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    settings = json.loads((directory / "config.json").read_text())
    del settings["model"]["attention_impl"], settings["model"]["remat_policy"]
    (tmp_path / "run/config.json").write_text(json.dumps(settings))
    rows = predict(tmp_path / "run", config.data.path, print, jax.devices()[:1])
    assert rows == predict(directory, config.data.path, print, jax.devices()[:1])


def test_a_run_on_tpus_may_predict_where_there_is_none(finished, tmp_path):
    config, directory, _ = finished
    shutil.copytree(directory, tmp_path / "run")
    settings = loaded(directory / "config.json")
    settings["model"]["attention_impl"] = "pallas"
    (tmp_path / "run/config.json").write_text(json.dumps(settings))
    rows = predict(tmp_path / "run", config.data.path, print, jax.devices()[:1])
    assert rows == predict(directory, config.data.path, print, jax.devices()[:1])


def learns(config, directory) -> dict:
    """What a run that evaluates on its own examples comes to."""
    config.data.valid_path = config.data.path
    train_one(config, directory)
    (scores,) = loaded(directory / "results.json")["held_out"].values()
    assert scores.pop("examples_per_second") > 0
    return scores


@pytest.mark.slow
def test_bert_with_adamw_learns_the_scores_of_32_pairs(config, write_pairs, tmp_path):
    config.task.dataset = "stsb"
    config.model.arch = "bert"
    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-2
    config.data.path = write_pairs("train.tsv", [i / 7 for i in range(32)])
    scores = learns(config, tmp_path / "run")
    assert min(scores["pearson"], scores["spearman"]) > 0.9
    first, last = (metrics_rows(tmp_path / "run")[i]["eval/loss"] for i in (0, -1))
    assert last < 0.05 * first


@pytest.mark.slow
def test_the_recipe_trains_the_encoder_by_sgd_and_the_head_by_lamb(config, write_pairs, tmp_path):
    config.data.path = write_pairs("train.tsv", LABELS)
    config.optim.name = "scale_invariant_sgd"
    config.optim.learning_rate = config.optim.weight_decay = 0.0
    config.optim.eta_lambda = 1e-3
    config.train.num_epochs = 20.0
    learns(config, tmp_path / "run")
    rows = [row for row in metrics_rows(tmp_path / "run") if "optim/equilibrium_gap" in row]
    assert len(rows) == 8
    assert max(row["optim/euler_residual"] for row in rows) < 1e-4


def test_epochs_and_shares_become_steps(config, write_pairs):
    config.data.path = config.data.valid_path = write_pairs("train.tsv", LABELS)
    run = build.run_config(config)
    assert (run.train.num_steps, run.optim.warmup_steps) == (0, 0)
    run = run.with_num_steps(steps_per_epoch=4)
    assert (run.train.num_steps, run.optim.warmup_steps) == (120, 12)
    assert run.optim.head.warmup_steps == 12
    assert run.with_num_steps(steps_per_epoch=4) == run


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task.dataset", "sst-2", "task.dataset='sst-2' is unknown; choose one of .*'sst2'"),
        ("task.name", "classify", "task.name='classify' is unknown"),
        ("train.num_epochs", -1.0, "train.num_epochs=-1.0 must be positive"),
        ("train.num_epochs", 0.0, "train.num_epochs=0.0 must be positive"),
        ("optim.warmup_fraction", 1.0, r"optim.warmup_fraction=1.0 must lie in \[0, 1\)"),
        ("optim.head.warmup_fraction", -0.1, "optim.head.warmup_fraction=-0.1 must lie in"),
        ("optim.eta_lambda", 1e-3, "optim.eta_lambda=0.001 sets both"),
        ("data.source", "text", "data.source must be files or tfds, not 'text'"),
        ("data.path", "", "data.path is empty"),
        ("data.num_seq_lens", 0, "data.num_seq_lens must be at least 1"),
        ("data.seq_len", 64, "data.seq_len=64 must lie between 8 and model.max_len=32"),
    ],
)
def test_a_value_that_cannot_work_is_named(config, key, value, message):
    *sections, name = key.split(".")
    target = config
    for section in sections:
        target = target[section]
    target[name] = value
    with pytest.raises(ConfigError, match=message):
        build.run_config(config)


def test_each_kind_of_run_has_its_own_measure_of_length(config):
    config.train.num_steps = 10
    with pytest.raises(ConfigError, match="train.num_steps is not a key"):
        build.run_config(config)
    del config.train.num_steps
    config.optim.head.warmup_steps = 10
    with pytest.raises(ConfigError, match="optim.head.warmup_steps is not a key"):
        build.run_config(config)


def test_a_head_of_the_recipe_is_refused(config):
    config.optim.name = "scale_invariant_sgd"
    config.optim.head.name = "recipe"
    with pytest.raises(ConfigError, match="its head is not scale invariant"):
        build.run_config(config)


def test_a_fresh_encoder_needs_a_vocabulary_of_its_size(config, vocab):
    config.model.vocab_size = None
    assert build.finetuning_tokenizer(build.run_config(config)).vocab_size == 48
    config.model.vocab_size = 50
    with pytest.raises(ConfigError, match="has 48 pieces but model.vocab_size=50; leave the"):
        build.finetuning_tokenizer(build.run_config(config))
    config.data.vocab = ""
    with pytest.raises(ConfigError, match="both empty, so there is no vocabulary"):
        build.finetuning_tokenizer(build.run_config(config))


def test_unlabelled_or_too_few_examples_are_refused(config, write_pairs, tmp_path):
    def load(**paths):
        config.data.update(paths)
        build.load_task(build.run_config(config), progress=print)

    unlabelled = tmp_path / "unlabelled.tsv"
    unlabelled.write_text("sentence1\tsentence2\na\tb\n")
    train = write_pairs("train.tsv", LABELS)
    with pytest.raises(DataError, match=r"data.valid_path \(.*_unlabelled\) has no labels"):
        load(path=train, valid_path=str(unlabelled))
    with pytest.raises(DataError, match="two sets '.*_train', whose predictions would go to one"):
        load(path=train, valid_path=train, test_path=train)
    config.data.test_path = ""
    with pytest.raises(DataError, match="data.valid_fraction=0.0001 holds out 0 of 32 examples"):
        load(path=train, valid_path="", valid_fraction=1e-4)


def test_broken_rows_are_told_and_stop_a_strict_run(config, write_pairs):
    path = pathlib.Path(write_pairs("broken.tsv", LABELS))
    path.write_text(path.read_text() + "w1 w2\n")
    config.data.path, config.data.valid_path = str(path), write_pairs("valid.tsv", LABELS)
    lines = []
    build.load_task(build.run_config(config), progress=lines.append)
    told = f"{path.parent.name}_broken: 1 of 33 rows left out, the first: {path}, line 34 has 1"
    assert any(line.startswith(told) for line in lines)
    config.task.strict = True
    with pytest.raises(DataError, match="broken.tsv, line 34 has 1 fields"):
        build.load_task(build.run_config(config), progress=print)


def test_text_for_a_run_that_was_pretrained_is_refused(tmp_path):
    from sibert_jax.train.config import default_config

    (tmp_path / "config.json").write_text(json.dumps(default_config().to_dict()))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(ConfigError, match="--predict is for fine-tuned runs"):
        predict(tmp_path, "new.txt", print)
    with pytest.raises(ConfigError, match="has no config.json that can be read"):
        predict(tmp_path / "nowhere", "new.txt", print)
