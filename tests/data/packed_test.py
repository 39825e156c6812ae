import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sibert_jax.data import DataError, PackedExamples

sentence_lengths = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1)


@settings(max_examples=60)
@given(documents=sentence_lengths, seq_len=st.integers(3, 12))
def test_chunks_put_together_are_the_documents_with_separators(
    documents, seq_len, make_corpus, make_tokenizer
):
    corpus, tokenizer = make_corpus(documents), make_tokenizer(1000)
    tokens = iter(corpus.tokens)
    stream = []
    for document in documents:
        stream += [next(tokens) for _ in range(sum(document))] + [tokenizer.sep_id]
    stream.pop()
    if len(stream) < seq_len - 2:
        with pytest.raises(DataError, match="too few for one example"):
            PackedExamples(corpus, seq_len, tokenizer)
        return
    examples = PackedExamples(corpus, seq_len, tokenizer)
    rows = np.stack([examples.example(0, i)[0] for i in range(len(examples))])
    assert (rows[:, 0] == tokenizer.cls_id).all()
    assert (rows[:, -1] == tokenizer.sep_id).all()
    chunks = rows[:, 1:-1].ravel().tolist()
    assert chunks == stream[: len(chunks)]
    assert len(stream) - len(chunks) < seq_len - 2


def test_an_example_has_one_segment_and_no_padding(make_corpus, make_tokenizer):
    tokenizer = make_tokenizer(40)
    examples = PackedExamples(make_corpus([[20], [5, 15]]), 8, tokenizer)
    tokens, segments, is_random_next = examples.example(3, 2)
    assert tokens.dtype == segments.dtype == np.int32
    assert not segments.any()
    assert tokenizer.pad_id not in tokens
    assert is_random_next == 0


def test_the_fingerprint_follows_corpus_and_length(make_corpus, make_tokenizer):
    tokenizer, corpus = make_tokenizer(40), make_corpus([[20], [20]])
    fingerprints = {
        PackedExamples(corpus, 8, tokenizer).fingerprint,
        PackedExamples(corpus, 9, tokenizer).fingerprint,
        PackedExamples(make_corpus([[40]]), 8, tokenizer).fingerprint,
        PackedExamples(corpus, 8, make_tokenizer(41)).fingerprint,
    }
    assert len(fingerprints) == 4


def test_a_length_without_room_for_text_is_refused(make_corpus, make_tokenizer):
    with pytest.raises(DataError, match=r"data\.seq_len=2 leaves no room"):
        PackedExamples(make_corpus([[9]]), 2, make_tokenizer(9))
