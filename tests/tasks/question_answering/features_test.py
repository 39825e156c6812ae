"""Windows of ids, their cache, and answers that are not where the file says."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import DataError, Tokenizer
from sibert_jax.data.cache import Cache
from sibert_jax.tasks.question_answering.dataset import Answer, Dataset, Question, read_dataset
from sibert_jax.tasks.question_answering.features import (
    WindowSizes,
    build_features,
    load_features,
)
from sibert_jax.tasks.question_answering.rows import WindowRows

from .conftest import PIECES, entry, squad

SHARED = pathlib.Path(__file__).parents[4] / "shared/data"
SIZES = WindowSizes(seq_len=16, max_query_len=4, doc_stride=3)
TOKENIZER = Tokenizer(PIECES)


def build(dataset, sizes=SIZES, for_training=True, strict=False):
    return build_features(
        dataset, TOKENIZER, sizes, for_training=for_training, strict=strict, progress=print
    )


def one_question(context, answer, start, question="who"):
    golds = () if answer is None else (Answer(answer, start),)
    return Dataset("d", (context,), (Question("q", question, 0, golds),), answer is None)


CONTEXT = "The oil crisis began in the café, in 1973 (or the crisis of oil) in the end."


def test_a_window_is_question_and_part_of_the_context():
    features, _ = build(one_question("oil crisis", "Crisis".lower(), 4), WindowSizes(12, 4, 3))
    rows = WindowRows(features, TOKENIZER, "f").rows(np.array([0]), 9)
    pieces = [TOKENIZER.pieces[i] for i in rows["tokens"][0]]
    assert " ".join(pieces) == "[CLS] who [SEP] oil crisis [SEP] [PAD] [PAD] [PAD]"
    assert rows["segments"][0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert rows["valid"][0].tolist() == [True] * 6 + [False] * 3
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
    tokens = WindowRows(features, TOKENIZER, "f")
    holding = 0
    for window in range(len(features)):
        row = tokens.rows(np.array([window]), sizes.seq_len)
        first, last = int(row["answer_first"][0]), int(row["answer_last"][0])
        if first == 0:
            assert last == 0
            continue
        holding += 1
        begin, stop = features.characters(window, first, last)
        # Whole pieces: at least the answer, and no piece more than it touches.
        assert begin <= start
        assert stop >= len(answer.rstrip()) + start
        assert CONTEXT[begin:start].isalnum() or begin == start
        assert row["may_end"][0, first : last + 1].all()
    if len(features) == 1:
        assert holding == 1


def test_in_a_window_without_the_answer_the_target_is_cls():
    features, _ = build(one_question(CONTEXT, "end", CONTEXT.index("end")))
    positions = [features.answer_positions(window) for window in range(len(features))]
    assert positions[0] == (0, 0)
    assert positions[-1] != (0, 0)
    unanswerable, _ = build(one_question(CONTEXT, None, 0))
    assert all(unanswerable.answer_positions(w) == (0, 0) for w in range(len(unanswerable)))


def test_a_long_question_is_cut_and_every_window_fits():
    features, _ = build(one_question(CONTEXT, "oil", 4, question="who began the oil crisis in"))
    assert features.question_offsets.tolist() == [0, 4]
    assert features.lengths.max() == 16
    rows = WindowRows(features, TOKENIZER, "f").rows(np.arange(len(features)), 16)
    assert rows["valid"].sum(axis=1).tolist() == features.lengths.tolist()
    # Every piece may start an answer in exactly one window.
    assert rows["may_start"].sum() == features.context_offsets[-1]


@pytest.mark.parametrize(
    ("answer", "start", "reason", "sentence"),
    [
        ("oil", 5, "their answer is not in their context", "but its context has 'il ' at answer_s"),
        ("oil", 3, "their answer is not in their context", "but its context has ' oi' at answer_s"),
        ("oil", -4, "their answer is not in their context", "but its context has '' at answer_s"),
        ("oil", 4000, "their answer is not in their context", "but its context has '' at answer_"),
        (" ", 3, "no word piece stands for their answer", "' ' at answer_start=3, and no word pie"),
        ("\ufffd", 79, "no word piece stands for their answer", "'\ufffd' at answer_start=79, and"),
        ("\u200b", 80, "no word piece stands for their answer", "at answer_start=80, and no word"),
        ("", 4, "their answer is the empty text", "the empty text as its answer; write"),
        ("", -1, "their answer is the empty text", "the empty text as its answer; write"),
    ],
)
def test_an_answer_that_cannot_be_found_is_left_out_or_stops_the_run(
    answer, start, reason, sentence
):
    good = Question("good", "who", 0, (Answer("crisis", 8),))
    bad = Question("bad", "who", 0, (Answer(answer, start),))
    dataset = Dataset("train.json", (f"{CONTEXT} x \ufffd\u200b",), (bad, good), False)
    features, report = build(dataset)
    assert set(features.window_question) == {1}
    assert report[-1].startswith(f"1 of 2 questions left out, as {reason}")
    assert "'bad'" in report[-1]
    with pytest.raises(DataError, match=f"train.json: question 'bad' has .*{sentence}"):
        build(dataset, strict=True)
    for_prediction, report = build(dataset, for_training=False)
    assert set(for_prediction.window_question) == {0, 1}
    assert len(report) == 1


def test_a_file_without_one_good_answer_stops_the_run():
    with pytest.raises(DataError, match=r"'q' has the answer 'gas', but its context has 'oil' at"):
        build(one_question(CONTEXT, "gas", 4))


def test_answers_that_are_no_whole_pieces_are_counted():
    _, report = build(one_question("the cafe", "caf", 4))
    assert report[1].startswith(
        "1 of 1 answers (100.00%) are not whole pieces; 'q': 'caf' in 'cafe'"
    )
    _, report = build(one_question("the café", "café", 4))
    assert report[1].startswith("0 of 1 answers")


def test_a_context_without_a_word_is_left_out_of_training_and_refused_elsewhere():
    questions = (Question("none", "who", 0, ()), Question("good", "who", 1, (Answer("oil", 4),)))
    dataset = Dataset("d", ("\ufffd ", CONTEXT), questions, True)
    features, report = build(dataset)
    assert set(features.window_question) == {1}
    assert report[-1] == ("1 of 2 questions left out, as their context has no word, such as 'none'")
    for options in ({"strict": True}, {"for_training": False}):
        with pytest.raises(DataError, match=r"d: the context of question 'none' has no word"):
            build(dataset, **options)
    with pytest.raises(DataError, match=r"d: the context of question 'q' has no word"):
        build(one_question(" \t ", None, 0))


@pytest.fixture
def train_file(write):
    questions = [entry(f"q{i}", "who", ("crisis", 8)) for i in range(3)]
    return write(
        "train.json", squad((CONTEXT, questions), ("the oil", [entry("r", "in", ("oil", 4))]))
    )


def load(path, cache, **changes):
    options = {"for_training": True, "strict": False, "progress": print} | changes
    return load_features(path, TOKENIZER, SIZES, cache, **options)


def test_a_second_call_maps_the_arrays_of_the_first(train_file, cache, monkeypatch):
    first, fingerprint = load(train_file, cache)
    monkeypatch.setattr("sibert_jax.tasks.question_answering.features.read_dataset", None)
    lines = []
    second, same = load(train_file, cache, progress=lines.append)
    assert same == fingerprint
    np.testing.assert_array_equal(first.context_ids, second.context_ids)
    np.testing.assert_array_equal(first.window_start, second.window_start)
    assert lines[0].startswith("train.json: 4 questions, ")


def test_a_changed_source_or_another_size_is_another_entry(train_file, cache):
    features, fingerprint = load(train_file, cache)
    content = json.loads(train_file.read_text())
    content["data"][0]["paragraphs"][1]["context"] = "the oils"
    train_file.write_text(json.dumps(content))
    changed, other = load(train_file, cache)
    assert other != fingerprint
    assert len(changed.context_ids) == len(features.context_ids) + 1
    wider = load_features(
        train_file, TOKENIZER, WindowSizes(20, 4, 3), cache,
        for_training=True, strict=False, progress=print,
    )  # fmt: skip
    assert len(wider[0]) < len(features)


def test_a_damaged_cache_is_built_again(train_file, cache):
    features, _ = load(train_file, cache)
    wanted = features.context_ids.tolist()
    (array,) = cache.directory.glob("squad-*/context_ids.npy")
    damaged = bytearray(array.read_bytes())
    damaged[-1] ^= 1
    array.write_bytes(damaged)
    assert load(train_file, cache)[0].context_ids.tolist() == wanted


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")
def test_the_answers_of_squad_read_back_as_they_are(tmp_path):
    """All 87,599: the exceptions are answers that begin or end inside a word piece."""
    tokenizer = Tokenizer.load(SHARED / "vocab/bert_base_uncased_vocab.txt")
    path, lines = SHARED / "squad/train-v1.1.json.xz", []
    features, _ = load_features(
        path, tokenizer, WindowSizes(384, 64, 128), Cache(str(tmp_path), print),
        for_training=True, strict=True, progress=lines.append,
    )  # fmt: skip
    print("\n".join(lines))
    assert "87,599 questions, 88,641 windows" in lines[-2]
    assert "174 of 87,599 answers (0.20%) are not whole pieces" in lines[-1]
    ids = tokenizer.encode_flat(read_dataset(path).contexts)[0]
    np.testing.assert_array_equal(features.context_ids, ids)
    placed = [features.answer_positions(w) != (0, 0) for w in range(len(features))]
    assert len(set(features.window_question[placed])) == 87_599


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")
def test_the_development_set_has_as_many_windows_as_berts_own_code_makes(tmp_path):
    tokenizer = Tokenizer.load(SHARED / "vocab/bert_base_uncased_vocab.txt")
    features, _ = load_features(
        SHARED / "squad/dev-v1.1.json.xz", tokenizer, WindowSizes(384, 64, 128),
        Cache(str(tmp_path), print), for_training=False, strict=False, progress=print,
    )  # fmt: skip
    assert len(features) == 10_833
