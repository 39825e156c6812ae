"""From files to a task with batches."""

import copy

import jax
import numpy as np
import pytest

from sibert_jax.data import DataError
from sibert_jax.tasks.question_answering.load import (
    SquadFilesConfig,
    load_new_questions,
    load_question_answering,
)
from sibert_jax.tasks.question_answering.task import QuestionAnsweringConfig
from tests.builders import model_config, random_params

from .conftest import TOKENIZER, TOKENS, entry, squad, without
from .task_test import SETTINGS

CONTEXT = "The oil crisis began in the cafe, in 1973 (or the crisis of oil) in the end."
MODEL = model_config(vocab_size=len(TOKENS), depth=1)


def content(*misplaced):
    questions = [
        entry(f"q{i}", "who began", (word, CONTEXT.index(word) + (i in misplaced)))
        for i, word in enumerate(["oil", "crisis", "cafe", "1973", "end"])
    ]
    return squad((CONTEXT, questions))


def changed(index, **keys):
    """The content with keys of one question changed."""
    found = copy.deepcopy(content())
    found["data"][0]["paragraphs"][0]["qas"][index] |= keys
    return found


@pytest.fixture
def load(tmp_path, write):
    """Loads files of training, development and test questions."""

    def load(train=None, *, dev=None, test=None, progress=lambda line: None, **settings):
        data = SquadFilesConfig(
            path=str(write("train.json", train or content())),
            valid_path=str(write("dev.json", dev or content())),
            test_path=str(write("test.json", test or content())),
            vocab=str(write("vocab.txt", "".join(f"{token}\n" for token in TOKENS))),
            cache_dir=str(tmp_path / "cache"),
            seq_len=16,
            num_seq_lens=2,
        )
        task = QuestionAnsweringConfig(**(SETTINGS | settings))
        return load_question_answering(
            MODEL, task, data, global_batch_size=4, seed=0, progress=progress
        )

    return load


def test_every_window_comes_once_an_epoch_with_its_own_answer(load):
    _, data = load()
    seen = {}
    for step in range(data.steps_per_epoch):
        batch = data.train.batch(step, slice(None))
        for i in np.flatnonzero(batch["example_weights"]):
            window, first, last = (
                int(batch[name][i]) for name in ("example_index", "answer_first", "answer_last")
            )
            tokens = [TOKENIZER.pieces[t] for t in batch["tokens"][i][first : last + 1]]
            assert window not in seen
            seen[window] = "".join(tokens).replace("##", "")
    assert sorted(seen) == list(range(len(seen)))
    assert set(seen.values()) == {"oil", "crisis", "cafe", "1973", "end", "[CLS]"}


def test_an_evaluation_has_the_loss_of_training(load):
    """Questions whose answer is misplaced are skipped in training and scored without a loss."""
    lines = []
    task, data = load(content(1, 3), dev=content(1, 3), progress=lines.append)
    assert any("2 of 5 questions skipped" in line and "'q1', 'q3'" in line for line in lines)
    batches = [data.train.batch(step, slice(None)) for step in range(data.steps_per_epoch)]
    params, sums = random_params(task.init, batches[0]), jax.jit(task.sums)
    wanted = sum(float(sums(params, batch)["span_loss"]) for batch in batches)
    wanted /= sum(float(task.denominators(batch)["span_loss"]) for batch in batches)
    batches = [data.valid.batch(step, slice(None)) for step in range(len(data.valid))]
    evaluate = jax.jit(task.eval_batch)
    found = task.eval_metrics(jax.device_get([evaluate(params, batch) for batch in batches]))
    assert (found["total"], found["loss"]) == (5, pytest.approx(wanted, rel=1e-5))
    task, data = load(dev=content(*range(5)))
    batches = [data.valid.batch(step, slice(None)) for step in range(len(data.valid))]
    found = task.eval_metrics(jax.device_get([evaluate(params, batch) for batch in batches]))
    assert found["total"] == 5
    assert "loss" not in found


NO_ANSWER = {"answers": []}
IMPOSSIBLE = NO_ANSWER | {"is_impossible": True}
UNLABELED = without(content(), "answers")


@pytest.mark.parametrize(
    ("files", "unanswerable", "message"),
    [
        ({"train": changed(2, **NO_ANSWER)}, False, r"train.json has .* \(1 of 5, such as 'q2'\)"),
        ({"train": changed(2, **NO_ANSWER)}, True, None),
        ({"dev": changed(2, **NO_ANSWER)}, False, r"dev.json has questions without an answer, but"),
        ({"train": changed(0, **IMPOSSIBLE)}, False, "task.unanswerable=False"),
        ({"train": changed(0, **IMPOSSIBLE)}, True, None),
        ({"train": UNLABELED}, False, "train.json has no answers; name a "),
        ({"dev": UNLABELED}, True, "dev.json has no answers; name a "),
        ({"test": UNLABELED}, False, None),
        ({"dev": squad()}, False, r"^data\.valid_path: .*no question"),
        ({"test": squad()}, False, r"^data\.test_path: .*no question"),
    ],
)
def test_a_file_is_loaded_or_refused_by_name(load, files, unanswerable, message):
    if message:
        with pytest.raises(DataError, match=message):
            load(**files, unanswerable=unanswerable)
    else:
        _, data = load(**files, unanswerable=unanswerable)
        assert [held_out.name for held_out in data.held_out] == ["dev", "test"]


def test_new_questions_are_answered_in_the_order_of_the_file(write):
    lines = [f"who {i}\tThe  Oil\u00a0crisis began in {1970 + i}.\n" for i in range(6)]
    configs = MODEL, QuestionAnsweringConfig(**SETTINGS), SquadFilesConfig(seq_len=16)
    path = write("new.tsv", "".join(lines))
    path, options = str(path), {"progress": print, "workdir": path.parent}
    task, new = load_new_questions(*configs, path, TOKENIZER, global_batch_size=4, **options)
    assert len(new.batches) > len(task.seq_lens) == 1  # each length is compiled
    results = []
    for step in range(len(new.batches)):
        batch = new.batches.batch(step, slice(None))
        second = batch["may_end"].argmax(axis=1)[:, None] + 1
        result = dict.fromkeys(("start_logit", "end_logit", "score_BC"), np.zeros(second.shape))
        result |= {"first_BC": second, "last_BC": second + 1, "window": batch["example_index"]}
        # Without task.unanswerable the score of no answer has no effect.
        result |= {"null_score": np.full(4, 9.0), "counts": batch["example_weights"] > 0}
        results.append(result)
    answers = [f"Oil crisis\twho {i}" for i in range(6)]
    assert new.lines(results) == ["prediction\tquestion", *answers]
