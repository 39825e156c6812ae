"""From files to a task with batches, without a model in between."""

import json

import jax
import numpy as np
import pytest

from sibert_jax.data import DataError, Tokenizer
from sibert_jax.model import ModelConfig
from sibert_jax.tasks.question_answering.load import (
    QuestionAnsweringSpec,
    load_new_questions,
    load_question_answering,
)
from sibert_jax.tasks.question_answering.task import QuestionAnsweringConfig

from .conftest import PIECES, entry, squad
from .task_test import SETTINGS, SIZES

CONTEXT = "The oil crisis began in the cafe, in 1973 (or the crisis of oil) in the end."
TOKENIZER = Tokenizer(PIECES)
MODEL = ModelConfig(arch="sibert", **SIZES)


def content(*wrong):
    questions = [
        entry(f"q{i}", "who began", (word, CONTEXT.index(word) + (i in wrong)))
        for i, word in enumerate(["oil", "crisis", "cafe", "1973", "end"])
    ]
    return squad((CONTEXT, questions))


@pytest.fixture
def load(tmp_path, write):
    """Loads a training file, with a development file of two further names."""

    def load(train, progress=lambda line: None, dev=None, test=None, **settings):
        spec = QuestionAnsweringSpec(
            path=str(write("train.json", train)),
            valid_path=str(write("dev.json", dev or content())),
            test_path=str(write("test.json", test or content())),
            vocab="",
            cache_dir=str(tmp_path / "cache"),
            num_seq_lens=2,
        )
        task = QuestionAnsweringConfig(**(SETTINGS | settings))
        return load_question_answering(
            MODEL, task, spec, TOKENIZER,
            seq_len=16, global_batch_size=4, seed=0, progress=progress,
        )  # fmt: skip

    return load


def test_batches_have_what_the_task_says(load):
    task, data = load(content())
    for batches in (data.train, data.valid):
        batch = batches.batch(0, slice(None))
        seq_len = batch["tokens"].shape[1]
        assert seq_len in task.seq_lens
        found = {name: (array.shape, array.dtype) for name, array in batch.items()}
        abstract = task.abstract_batch(4, seq_len)
        assert found == {name: (leaf.shape, leaf.dtype) for name, leaf in abstract.items()}
    assert [held_out.name for held_out in data.held_out] == ["dev", "test"]
    assert data.main_metric == "f1"


def test_every_window_comes_once_an_epoch_with_its_own_answer(load):
    _, data = load(content())
    seen = {}
    for step in range(data.steps_per_epoch):
        batch = data.train.batch(step, slice(None))
        for i in np.flatnonzero(batch["example_weights"]):
            window, first, last = (
                int(batch[name][i]) for name in ("example_index", "answer_first", "answer_last")
            )
            pieces = [TOKENIZER.pieces[t] for t in batch["tokens"][i][first : last + 1]]
            assert window not in seen
            seen[window] = "".join(pieces).replace("##", "")
    assert sorted(seen) == list(range(len(seen)))
    assert set(seen.values()) == {"oil", "crisis", "cafe", "1973", "end", "[CLS]"}


def test_misplaced_answers_are_left_out_of_training_and_said(load):
    lines = []
    _, all_of_them = load(content())
    _, fewer = load(content(1, 3), lines.append)
    assert any("2 of 5 questions left out" in line and "'q1', 'q3'" in line for line in lines)
    assert fewer.steps_per_epoch < all_of_them.steps_per_epoch
    assert fewer.fingerprint != all_of_them.fingerprint
    with pytest.raises(DataError, match=r"train.json: question 'q1' has the answer 'crisis', but"):
        load(content(1), strict=True)


def mean_loss(task, batches, steps) -> float:
    """The loss as training computes it, with the same parameters at each call."""
    params = jax.jit(task.init)(jax.random.key(0), batches.batch(0, slice(None)))
    found = [batches.batch(step, slice(None)) for step in range(steps)]
    sums = [jax.jit(task.sums)(params, batch)["span_loss"] for batch in found]
    return float(sum(sums) / sum(task.totals(batch)["span_loss"] for batch in found))


def evaluated(task, batches) -> dict[str, float]:
    params = jax.jit(task.init)(jax.random.key(0), batches.batch(0, slice(None)))
    evaluate = jax.jit(task.eval_batch)
    results = [evaluate(params, batches.batch(i, slice(None))) for i in range(len(batches))]
    return task.eval_metrics(jax.device_get(results))


def test_the_loss_of_an_evaluation_is_that_of_training_on_the_same_questions(load):
    task, data = load(content(), dev=content())
    wanted = mean_loss(task, data.train, data.steps_per_epoch)
    found = evaluated(task, data.valid)
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert found["total"] == 5


def test_questions_whose_answer_is_misplaced_are_scored_but_have_no_loss(load):
    task, data = load(content(1, 3), dev=content(1, 3))
    wanted = mean_loss(task, data.train, data.steps_per_epoch)
    found = evaluated(task, data.valid)
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert found["total"] == 5
    task, data = load(content(), dev=content(*range(5)))
    assert "loss" not in evaluated(task, data.valid)


def test_the_files_of_two_versions_are_not_mixed_up(load):
    train = content()
    train["data"][0]["paragraphs"][0]["qas"].append(entry("none", "who", is_impossible=True))
    with pytest.raises(DataError, match=r"train.json has questions without answer"):
        load(train)
    task, _ = load(json.loads(json.dumps(train)), unanswerable=True)
    assert task.task.unanswerable


def without_answers():
    unlabelled = content()
    for question in unlabelled["data"][0]["paragraphs"][0]["qas"]:
        del question["answers"]
    return unlabelled


@pytest.mark.parametrize("unanswerable", [False, True])
def test_a_file_without_answers_is_for_testing_alone(load, tmp_path, unanswerable):
    _, data = load(content(), test=without_answers(), unanswerable=unanswerable)
    assert [held_out.name for held_out in data.held_out] == ["dev", "test"]
    with pytest.raises(DataError, match=r"dev.json has no answers; name a labelled file"):
        load(content(), dev=without_answers(), unanswerable=unanswerable)
    with pytest.raises(DataError, match=r"train.json has no answers; name a labelled file"):
        load(without_answers(), unanswerable=unanswerable)


def test_is_impossible_false_everywhere_is_squad_1(load):
    habit = content()
    for question in habit["data"][0]["paragraphs"][0]["qas"]:
        question["is_impossible"] = False
    _, data = load(habit, dev=habit, test=habit)
    assert data.steps_per_epoch == load(content())[1].steps_per_epoch


def test_questions_without_answer_are_counted_and_the_first_is_named(load):
    some = content()
    some["data"][0]["paragraphs"][0]["qas"][2]["answers"] = []
    for files in ({"train": some}, {"train": content(), "dev": some}):
        with pytest.raises(DataError, match=r"json has questions .* \(1 of 5, such as 'q2'\)"):
            load(**files)


def test_half_a_surrogate_pair_is_replaced_and_said(load, write):
    half = content()
    half["data"][0]["paragraphs"][0]["context"] += " \ud83d"
    lines = []
    load(half, lines.append, dev=half)
    told = "1 unpaired surrogate replaced by U+FFFD, the first in "
    assert sum(told in line for line in lines) == 2
    lines = []
    load_new_questions(
        MODEL, QuestionAnsweringConfig(**SETTINGS), str(write("new.json", half)), TOKENIZER,
        seq_len=16, global_batch_size=4, progress=lines.append,
    )  # fmt: skip
    assert sum(told in line for line in lines) == 1


def test_new_questions_are_answered_in_the_order_of_the_file_out_of_their_contexts(write):
    lines = [f"who {i}\tThe  Oil\u00a0crisis began in {1970 + i}." for i in range(6)]
    path = write("new.tsv", "".join(f"{line}\n" for line in lines))
    task, new = load_new_questions(
        MODEL, QuestionAnsweringConfig(**SETTINGS), str(path), TOKENIZER,
        seq_len=16, global_batch_size=4, progress=print,
    )  # fmt: skip
    assert len(new.batches) > len(task.seq_lens) == 1  # each length is compiled
    results = []
    for step in range(len(new.batches)):
        batch = new.batches.batch(step, slice(None))
        span = np.stack([batch["may_end"].argmax(axis=1) + 1] * 2)  # the second and third piece
        logits = np.zeros((len(batch["tokens"]), 1))
        results.append(
            {
                "window": batch["example_index"],
                "counts": batch["example_weights"] > 0,
                "null_score": logits[:, 0] + 9.0,  # without task.unanswerable it says nothing
                "start_logit": logits,
                "end_logit": logits,
                "score_BC": logits,
                "first_BC": span[0][:, None],
                "last_BC": span[1][:, None] + 1,
            }
        )
    answers = [f"Oil crisis\twho {i}" for i in range(6)]
    assert new.lines(results) == ["prediction\tquestion", *answers]


@pytest.mark.parametrize("key", ["path", "valid_path", "test_path"])
def test_a_file_that_cannot_be_used_is_named_with_its_key(load, key):
    sets = {"path": "train", "valid_path": "dev", "test_path": "test"}
    wrong = {sets[key]: {"version": "1.1", "data": []}}
    with pytest.raises(DataError, match=rf"^data\.{key}: .*holds no question"):
        load(**({"train": content()} | wrong))
