"""Windows of ids with their answers, those skipped, and the cache."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import DataError, Tokenizer
from sibert_jax.data.cache import Cache
from sibert_jax.tasks.question_answering.dataset import Answer, Dataset, Question, read_dataset
from sibert_jax.tasks.question_answering.features import (
    WindowRows,
    WindowSizes,
    build_features,
    load_features,
)

from .conftest import SHARED, TOKENIZER, entry, squad

SIZES = WindowSizes(seq_len=16, max_query_len=4, doc_stride=3)
CONTEXT = "The oil crisis began in the café, in 1973 (or the crisis of oil) in the end."


def build(dataset, sizes=SIZES, for_training=True, strict=False):
    return build_features(
        dataset, TOKENIZER, sizes, for_training=for_training, strict=strict, progress=print
    )


def one_question(context, answer, start, question="who"):
    golds = () if answer is None else (Answer(answer, start),)
    return Dataset("d", (context,), (Question("q", question, 0, golds),), answer is None)


def test_a_window_is_question_and_part_of_the_context():
    features, _ = build(one_question("oil crisis", "crisis", 4), WindowSizes(12, 4, 3))
    rows = WindowRows(features, TOKENIZER, "f").rows(np.array([0]), 9)
    tokens = [TOKENIZER.pieces[i] for i in rows["tokens"][0]]
    assert " ".join(tokens) == "[CLS] who [SEP] oil crisis [SEP] [PAD] [PAD] [PAD]"
    assert rows["segments"][0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert rows["attention_mask"][0].tolist() == [True] * 6 + [False] * 3
    assert np.flatnonzero(rows["may_end"][0]).tolist() == [3, 4]
    assert (rows["answer_first"][0], rows["answer_last"][0]) == (4, 4)
    assert features.lengths.tolist() == [6]


@settings(max_examples=60)
@given(st.data())
def test_positions_of_an_answer_read_back_as_the_answer(data):
    start = data.draw(st.sampled_from([i for i, c in enumerate(CONTEXT) if c.isalnum()]))
    end = data.draw(st.integers(start + 1, len(CONTEXT)))
    sizes = WindowSizes(data.draw(st.integers(9, 40)), 4, data.draw(st.integers(1, 12)))
    answer = CONTEXT[start:end]
    features, _ = build(one_question(CONTEXT, answer, start), sizes)
    rows = WindowRows(features, TOKENIZER, "f").rows(np.arange(len(features)), sizes.seq_len)
    for window, (first, last) in enumerate(zip(rows["answer_first"], rows["answer_last"])):
        if first == 0:  # the answer is not in this window: the target is [CLS]
            assert last == 0
            assert len(features) > 1
            assert features.answer_positions(window) == (0, 0)
            continue
        begin, stop = features.characters(window, first, last)
        # Whole tokens: at least the answer, and no token that it does not overlap.
        assert begin <= start
        assert stop >= len(answer.rstrip()) + start
        assert CONTEXT[begin:start].isalnum() or begin == start
        assert rows["may_end"][window, first : last + 1].all()


def test_a_long_question_is_truncated_and_every_window_fits():
    features, _ = build(one_question(CONTEXT, "oil", 4, question="who began the oil crisis in"))
    assert features.question_offsets.tolist() == [0, 4]
    assert features.lengths.max() == 16
    rows = WindowRows(features, TOKENIZER, "f").rows(np.arange(len(features)), 16)
    assert rows["attention_mask"].sum(axis=1).tolist() == features.lengths.tolist()
    # Every token may start an answer in exactly one window.
    assert rows["may_start"].sum() == features.context_offsets[-1]


@pytest.mark.parametrize(
    ("answer", "start", "reason", "sentence"),
    [
        ("oil", 5, "their answer is not in the context", "but its context has 'il ' at answer_s"),
        ("oil", -4, "their answer is not in the context", "but its context has '' at answer_s"),
        (" ", 3, "their answer has no token", "' ' at answer_start=3, which has no token"),
        ("\u200b", 80, "their answer has no token", "at answer_start=80, which has no token"),
        ("", 4, "their answer is empty", "an empty answer; write"),
    ],
)
def test_an_answer_not_found_is_skipped_or_ends_a_strict_run(answer, start, reason, sentence):
    good = Question("good", "who", 0, (Answer("crisis", 8),))
    bad = Question("bad", "who", 0, (Answer(answer, start),))
    dataset = Dataset("train.json", (f"{CONTEXT} x \ufffd\u200b",), (bad, good), False)
    features, report = build(dataset)
    assert set(features.window_question) == {1}
    assert report[-1].startswith(f"1 of 2 questions skipped because {reason}")
    assert report[-1].endswith(": 'bad'")
    with pytest.raises(DataError, match=f"train.json: question 'bad' has .*{sentence}"):
        build(dataset, strict=True)
    for_prediction, report = build(dataset, for_training=False)
    assert set(for_prediction.window_question) == {0, 1}
    assert len(report) == 1


def test_answers_that_split_a_token_are_counted():
    _, (_, line, *_) = build(one_question("the cafe", "caf", 4))
    assert line.startswith("1 of 1 answers (100.00%) begin or end inside a token; 'q': 'caf' in")
    _, (_, line, *_) = build(one_question("the café", "café", 4))
    assert line.startswith("0 of 1 answers")


def test_a_context_without_a_word_is_skipped_in_training_only():
    questions = (Question("none", "who", 0, ()), Question("good", "who", 1, (Answer("oil", 4),)))
    dataset = Dataset("d", ("\ufffd ", CONTEXT), questions, True)
    features, report = build(dataset)
    assert set(features.window_question) == {1}
    assert report[-1] == "1 of 2 questions skipped because their context has no word: 'none'"
    for options in ({"strict": True}, {"for_training": False}):
        with pytest.raises(DataError, match=r"d: the context of question 'none' has no word"):
            build(dataset, **options)
    with pytest.raises(DataError, match=r"'q' has the answer 'gas', but its context has 'oil' at"):
        build(one_question(CONTEXT, "gas", 4))
    with pytest.raises(DataError, match=r"d: the context of question 'q' has no word"):
        build(one_question(" \t ", None, 0))


def test_windows_are_cached_by_source_and_sizes(write, tmp_path):
    lines, cache = [], Cache(str(tmp_path / "cache"), print)

    def load(context, sizes=SIZES):
        path = write("train.json", squad((context, [entry("q", "who", ("crisis", 8))])))
        options = {"for_training": True, "strict": False, "progress": lines.append}
        return load_features(path, TOKENIZER, sizes, cache, **options)

    def files():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}

    first, fingerprint = load(CONTEXT)
    built = files()
    second, same = load(CONTEXT)
    assert files() == built  # nothing is written again
    assert same == fingerprint
    np.testing.assert_array_equal(first.context_ids, second.context_ids)
    np.testing.assert_array_equal(first.window_start, second.window_start)
    assert lines[2].startswith("train.json: 1 questions, ")
    changed, other = load(f"{CONTEXT} s")
    assert other != fingerprint
    assert len(changed.context_ids) == len(first.context_ids) + 1
    assert len(load(CONTEXT, WindowSizes(20, 4, 3))[0]) < len(first)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")
def test_the_windows_and_answers_of_squad(tmp_path):
    """All 87,599 answers read back; the development set has the windows of BERT's own code."""
    tokenizer = Tokenizer.load(SHARED / "vocab/bert_base_uncased_vocab.txt")
    cache, lines = Cache(str(tmp_path), print), []

    def load(name, **options):
        path, sizes = SHARED / f"squad/{name}-v1.1.json.xz", WindowSizes(384, 64, 128)
        return path, load_features(path, tokenizer, sizes, cache, **options)[0]

    path, features = load("train", for_training=True, strict=True, progress=lines.append)
    assert "87,599 questions, 88,641 windows" in lines[-2]
    assert "174 of 87,599 answers (0.20%) begin or end inside a token" in lines[-1]
    ids = tokenizer.encode_flat(read_dataset(path).contexts)[0]
    np.testing.assert_array_equal(features.context_ids, ids)
    found = [features.answer_positions(w) != (0, 0) for w in range(len(features))]
    assert len(set(features.window_question[found])) == 87_599
    assert len(load("dev", for_training=False, strict=False, progress=print)[1]) == 10_833
