"""Packed examples, pairs and mixtures, against constructions by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import PackedExamples, PairExamples, WeightedExamples, pretraining_examples
from sibert_jax.data.pretraining_examples import chunk_sentences

from .conftest import assert_share, make_corpus, make_tokenizer

DOCUMENTS = [[4, 5, 3, 6, 2, 7, 5]] * 40 + [[3, 30, 2], [1, 1], [50]]
SEQ_LEN = 24
lengths_of_documents = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1)


@settings(max_examples=40)
@given(documents=lengths_of_documents, seq_len=st.integers(3, 12))
def test_packed_chunks_are_the_documents_with_separators(documents, seq_len):
    corpus, tokenizer = make_corpus([[10], *documents]), make_tokenizer(1000)
    tokens = iter(corpus.tokens)
    stream = []
    for document in [[10], *documents]:
        stream += [next(tokens) for _ in range(sum(document))] + [tokenizer.sep_id]
    stream.pop()
    examples = PackedExamples(corpus, seq_len, tokenizer)
    rows, segments, labels = zip(*(examples.example(0, i) for i in range(len(examples))))
    assert all((row[0], row[-1]) == (tokenizer.cls_id, tokenizer.sep_id) for row in rows)
    chunks = [token for row in rows for token in row[1:-1].tolist()]
    assert chunks == stream[: len(chunks)]
    assert len(stream) - len(chunks) < seq_len - 2
    assert not np.any(segments)
    assert not any(labels)
    assert rows[0].dtype == segments[0].dtype == np.int32


TOKENIZER = make_tokenizer(2000)


def make_pairs(documents=DOCUMENTS, seed=1, **options):
    return PairExamples(make_corpus(documents), SEQ_LEN, TOKENIZER, seed, **options)


def spans(example):
    """Takes an example apart, checking its special tokens and segments."""
    tokens, segments, _ = example
    assert tokens[0] == TOKENIZER.cls_id
    end_a, end_b = np.flatnonzero(tokens == TOKENIZER.sep_id)
    np.testing.assert_array_equal(np.flatnonzero(segments), np.arange(end_a + 1, end_b + 1))
    assert (tokens[end_b + 1 :] == TOKENIZER.pad_id).all()
    return tokens[1:end_a], tokens[end_a + 1 : end_b]


def document_of(span, corpus):
    """The one document that a span of consecutive tokens lies in."""
    assert (np.diff(span) == 1).all()
    positions = span - corpus.tokens[0]
    documents = np.searchsorted(corpus.document_token_starts, positions, side="right") - 1
    assert len(set(documents)) == 1
    return documents[0]


def all_examples(examples, epochs=4):
    return [examples.example(epoch, i) for epoch in range(epochs) for i in range(len(examples))]


def test_a_pair_is_one_text_or_from_two_documents():
    corpus = make_corpus(DOCUMENTS)
    examples = all_examples(make_pairs())
    assert {example[2] for example in examples} == {0, 1}
    for example in examples:
        span_a, span_b = spans(example)
        documents = document_of(span_a, corpus), document_of(span_b, corpus)
        assert (documents[0] != documents[1]) == example[2]
        if not example[2]:
            assert span_a[-1] < span_b[0]
            if len(span_a) + len(span_b) < SEQ_LEN - 3:  # nothing was dropped
                assert span_b[0] == span_a[-1] + 1


def test_half_of_the_pairs_are_random_and_all_of_one_sentence():
    assert_share([e[2] for e in all_examples(make_pairs([[6, 6, 6, 6]] * 60), 30)], 0.5)
    assert {example[2] for example in all_examples(make_pairs([[30]] * 5))} == {1}


def test_a_share_of_the_pairs_is_short():
    short_prob = 0.1
    examples = make_pairs([[3] * 28] * 8, short_prob=short_prob)  # 4 chunks of 7 sentences each
    assert len(examples) == 32
    true_pairs = [e for e in all_examples(examples, epochs=60) if e[2] == 0]
    is_short = [(e[0] == TOKENIZER.pad_id).any() for e in true_pairs]
    # Of the 20 targets, 19 to 21 still take all seven sentences and 2 and 3 take one, which is
    # never a true pair.
    expected = short_prob * 15 / ((1 - short_prob) * 20 + short_prob * 18)
    assert_share(is_short, expected)


def test_a_pair_is_a_function_of_seed_epoch_and_index():
    examples, again, other = make_pairs(), make_pairs(), make_pairs(seed=2)

    def drawn(examples, epoch, order):
        return {i: examples.example(epoch, i)[0].tolist() for i in order}

    first = drawn(examples, 0, range(len(examples)))
    assert first == drawn(again, 0, reversed(range(len(again))))
    assert first != drawn(examples, 1, range(len(examples)))
    assert first != drawn(other, 0, range(len(examples)))


def chunks_by_hand(documents, target):
    starts, sentence = [], 0
    for document in documents:
        room = 0
        for length in document:
            if room <= 0:
                starts.append(sentence)
                room = target
            room -= length
            sentence += 1
    return [*starts, sentence]


@settings(max_examples=40)
@given(documents=lengths_of_documents, target=st.integers(1, 20), block=st.integers(1, 9))
def test_chunks_are_sentences_that_just_reach_the_target(documents, target, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining_examples, "BLOCK_SENTENCES", block)
        found = chunk_sentences(make_corpus(documents), target)
    assert found.tolist() == chunks_by_hand(documents, target)


class NumberedExamples:
    """Example i holds the number of its set, its epoch and i."""

    def __init__(self, number, size):
        self.number, self.size, self.seq_len = number, size, 3
        self.fingerprint = f"{number} {size}"

    def __len__(self):
        return self.size

    def example(self, epoch, index):
        return np.array([self.number, epoch, index], np.int32), np.zeros(3, np.int32), 0


def mixture(sizes, weights):
    return WeightedExamples([NumberedExamples(*item) for item in enumerate(sizes)], weights, seed=0)


def drawn(examples, num_epochs):
    return [tuple(example[0].tolist()) for example in all_examples(examples, num_epochs)]


def test_without_weights_each_example_occurs_once_per_epoch():
    sizes = (7, 1, 20)
    rows = drawn(mixture(sizes, ()), 3)
    for epoch in range(3):
        expected = [(k, epoch, i) for k, size in enumerate(sizes) for i in range(size)]
        assert sorted(rows[28 * epoch : 28 * (epoch + 1)]) == expected


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), st.integers(0, 10**12))
def test_each_set_has_its_share_of_any_part_of_the_stream(weights, start):
    examples = mixture([9] * len(weights), weights)
    located = [examples.locate(start + n) for n in range(200)]
    for k, weight in enumerate(weights):
        counts = [count for number, count in located if number == k]
        assert counts == list(range(counts[0], counts[0] + len(counts)) if counts else ())
        assert abs(len(counts) - 200 * weight / sum(weights)) < 2 * (k + 1)


def test_a_small_set_starts_over_and_a_large_one_continues():
    rows = drawn(mixture((4, 40), (1, 1)), 2)  # 44 of each
    small, large = ([row for row in rows if row[0] == k] for k in (0, 1))
    assert sorted(small) == [(0, epoch, i) for epoch in range(11) for i in range(4)]
    assert sorted(large[:40]) == [(1, 0, i) for i in range(40)]
    assert {row[1] for row in large[40:]} == {1}
    assert len({tuple(i for _, _, i in small[4 * e : 4 * e + 4]) for e in range(11)}) > 1


def test_fingerprints_follow_all_that_examples_depend_on():
    tokenizer, corpus = make_tokenizer(40), make_corpus([[20], [20]])
    a, b = NumberedExamples(0, 4), NumberedExamples(1, 4)
    examples = [
        PackedExamples(corpus, 8, tokenizer),
        PackedExamples(corpus, 9, tokenizer),
        PackedExamples(make_corpus([[40]]), 8, tokenizer),
        PackedExamples(corpus, 8, make_tokenizer(41)),
        make_pairs(),
        make_pairs(seed=2),
        make_pairs(short_prob=0.2),
        *(WeightedExamples((a, b), *args) for args in [((1, 1), 0), ((1, 2), 0), ((), 0), ((), 1)]),
        WeightedExamples((b, a), (), 0),
    ]
    assert len({e.fingerprint for e in examples}) == len(examples)
    assert make_pairs().fingerprint == make_pairs().fingerprint
