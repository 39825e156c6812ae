import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import DataError, PairExamples
from sibert_jax.data import pretraining_examples as pairs
from sibert_jax.data.pretraining_examples import chunk_sentences, truncate_pair

DOCUMENTS = [[4, 5, 3, 6, 2, 7, 5]] * 40 + [[3, 30, 2], [1, 1], [50]]
SEQ_LEN = 24


@pytest.fixture
def corpus(make_corpus):
    return make_corpus(DOCUMENTS)


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer(2000)


@pytest.fixture
def examples(corpus, tokenizer):
    return PairExamples(corpus, SEQ_LEN, tokenizer, seed=1)


def spans(example, tokenizer):
    """Takes an example apart, checking its special tokens and segments."""
    tokens, segments, _ = example
    assert tokens[0] == tokenizer.cls_id
    end_a, end_b = np.flatnonzero(tokens == tokenizer.sep_id)
    assert not segments[: end_a + 1].any()
    assert segments[end_a + 1 : end_b + 1].all()
    assert not segments[end_b + 1 :].any()
    assert (tokens[end_b + 1 :] == tokenizer.pad_id).all()
    return tokens[1:end_a], tokens[end_a + 1 : end_b]


def document_of(span, corpus):
    """The one document that a span of consecutive tokens lies in."""
    assert (np.diff(span) == 1).all()
    places = span - corpus.tokens[0]
    documents = np.searchsorted(corpus.document_token_starts, places, side="right") - 1
    assert len(set(documents)) == 1
    return documents[0]


def all_examples(examples, epochs=range(4)):
    return [examples.example(epoch, i) for epoch in epochs for i in range(len(examples))]


def test_a_true_pair_is_one_text_and_a_random_one_from_another_document(
    examples, corpus, tokenizer
):
    labels = set()
    for example in all_examples(examples):
        span_a, span_b = spans(example, tokenizer)
        document_a, document_b = (document_of(span, corpus) for span in (span_a, span_b))
        labels.add(example[2])
        if example[2]:
            assert document_a != document_b
        else:
            assert document_a == document_b
            assert span_a[-1] < span_b[0]
            if len(span_a) + len(span_b) < SEQ_LEN - 3:  # nothing was cut off
                assert span_b[0] == span_a[-1] + 1
    assert labels == {0, 1}


def test_half_of_the_chunks_with_a_rest_get_a_random_next(make_corpus, tokenizer):
    corpus = make_corpus([[6, 6, 6, 6]] * 60)
    examples = PairExamples(corpus, SEQ_LEN, tokenizer, seed=0, short_prob=0.0)
    labels = [example[2] for example in all_examples(examples, range(40))]
    assert abs(np.mean(labels) - 0.5) < 5 * 0.5 / np.sqrt(len(labels))


def test_every_other_document_is_drawn_equally_often(make_corpus, tokenizer):
    corpus = make_corpus([[5]] * 4)
    examples = PairExamples(corpus, SEQ_LEN, tokenizer, seed=0)
    drawn = [document_of(spans(examples.example(e, 1), tokenizer)[1], corpus) for e in range(900)]
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    assert np.abs(counts[[0, 2, 3]] - 300).max() < 5 * np.sqrt(900 * 1 / 3 * 2 / 3)


def test_a_chunk_of_one_sentence_always_gets_a_random_next(make_corpus, tokenizer):
    examples = PairExamples(make_corpus([[30]] * 5), SEQ_LEN, tokenizer, seed=0)
    assert {example[2] for example in all_examples(examples)} == {1}


def test_only_short_examples_and_ends_of_documents_leave_room(make_corpus, tokenizer):
    corpus = make_corpus([[3] * 28] * 8)  # four chunks of seven sentences each
    full = PairExamples(corpus, SEQ_LEN, tokenizer, seed=0, short_prob=0.0)
    assert len(full) == 32
    lengths = [(e[0] != tokenizer.pad_id).sum() for e in all_examples(full) if e[2] == 0]
    assert set(lengths) == {SEQ_LEN}
    short = PairExamples(corpus, SEQ_LEN, tokenizer, seed=0, short_prob=1.0)
    lengths = [(e[0] != tokenizer.pad_id).sum() for e in all_examples(short)]
    assert len(set(lengths)) > 5
    some = PairExamples(corpus, SEQ_LEN, tokenizer, seed=0, short_prob=0.1)
    is_cut = [
        (e[0] != tokenizer.pad_id).sum() < SEQ_LEN
        for e in all_examples(some, range(200))
        if e[2] == 0
    ]
    # Of the 20 targets, 19 to 21 still take all seven sentences and 2 and 3 take one, which is
    # never a true pair.
    expected = 0.1 * 15 / (0.9 * 20 + 0.1 * 18)
    assert abs(np.mean(is_cut) - expected) < 5 * np.sqrt(expected / len(is_cut))


def test_an_example_is_a_function_of_seed_epoch_and_index(corpus, tokenizer, examples):
    again = PairExamples(corpus, SEQ_LEN, tokenizer, seed=1)
    other = PairExamples(corpus, SEQ_LEN, tokenizer, seed=2)
    first = [examples.example(0, i)[0].tolist() for i in range(len(examples))]
    assert first == [again.example(0, i)[0].tolist() for i in reversed(range(len(again)))][::-1]
    assert first != [examples.example(1, i)[0].tolist() for i in range(len(examples))]
    assert first != [other.example(0, i)[0].tolist() for i in range(len(examples))]
    assert other.fingerprint != examples.fingerprint == again.fingerprint


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


@settings(max_examples=60)
@given(
    documents=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=9), min_size=1),
    target=st.integers(1, 20),
    block=st.integers(1, 9),
)
def test_chunks_are_whole_sentences_that_just_reach_the_target(
    documents, target, block, make_corpus
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "BLOCK_SENTENCES", block)
        found = chunk_sentences(make_corpus(documents), target)
    assert found.tolist() == chunks_by_hand(documents, target)


def lengths_by_hand(len_a, len_b, max_tokens):
    while len_a + len_b > max_tokens:
        if len_a > len_b:
            len_a -= 1
        else:
            len_b -= 1
    return len_a, len_b


@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 40))
def test_truncation_takes_from_the_longer_span(len_a, len_b, max_tokens):
    span_a, span_b = np.arange(len_a), np.arange(len_b)
    cut = truncate_pair(span_a, span_b, max_tokens, np.random.default_rng(0))
    assert tuple(map(len, cut)) == lengths_by_hand(len_a, len_b, max_tokens)
    assert min(map(len, cut)) >= 1
    assert all((np.diff(span) == 1).all() for span in cut)


def test_truncation_takes_from_front_and_back_alike():
    rng = np.random.default_rng(0)
    fronts = [truncate_pair(np.arange(50), np.arange(4), 44, rng)[0][0] for _ in range(400)]
    assert abs(np.mean(fronts) - 5) < 5 * np.sqrt(10 / 4 / 400)


def test_a_single_document_is_refused(make_corpus, tokenizer):
    with pytest.raises(DataError, match=r"draws sentences from other documents, .* has 1;"):
        PairExamples(make_corpus([[9, 9]]), SEQ_LEN, tokenizer, seed=0)


def test_a_length_without_room_for_two_spans_is_refused(corpus, tokenizer):
    with pytest.raises(DataError, match=r"data\.seq_len=7 is too short for pairs"):
        PairExamples(corpus, 7, tokenizer, seed=0)
