"""From text to token corpora: what they hold, and when the cache may be used."""

import itertools
import os
import pathlib
import textwrap

import numpy as np
import pytest

from sibert_jax.data import DataError, WordPiece
from sibert_jax.data.documents import is_held_out, split_sentences
from sibert_jax.data.text_files import read_documents
from sibert_jax.data.tokenizers.vocabulary import SPECIAL_PIECES

ALL_WORK = ["reading", "learning", "tokenized"]


def done(progress):
    """The first words of the lines that tell of work."""
    words = (*ALL_WORK, "rebuilding")
    return [word for line in progress for word in words if line.startswith(word)]


def assert_holds(corpus, documents, tokenizer):
    sentences = [[s for paragraph in d for s in split_sentences(paragraph)] for d in documents]
    ids = tokenizer.encode_batch([sentence for document in sentences for sentence in document])
    np.testing.assert_array_equal(corpus.tokens, np.concatenate(ids))
    np.testing.assert_array_equal(corpus.sentence_starts, np.cumsum([0, *map(len, ids)]))
    np.testing.assert_array_equal(corpus.document_starts, np.cumsum([0, *map(len, sentences)]))


def test_corpora_hold_the_sentences_of_their_documents(write_text, load):
    paths = [write_text("a.txt", 40), write_text("b.txt", 20, seed=1)]
    corpora = load(path=",".join(paths), weights=(3.0, 1.0))
    assert corpora.weights == (3.0, 1.0)
    held_out = []
    for path, corpus in zip(paths, corpora.train, strict=True):
        documents = list(read_documents(pathlib.Path(path)))
        kept = [document for document in documents if not is_held_out(document, 0.2)]
        held_out += [document for document in documents if is_held_out(document, 0.2)]
        assert_holds(corpus, kept, corpora.tokenizer)
        assert corpus.tokens.dtype == np.uint16
    assert 0 < len(held_out) < 30
    assert_holds(corpora.valid, held_out, corpora.tokenizer)
    tokens = np.concatenate([corpus.tokens for corpus in corpora.train])
    np.testing.assert_array_equal(corpora.unigram_counts, np.bincount(tokens, minlength=300))


def keep_times(change):
    def changed(path):
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        change(path)
        os.utime(path, ns=times)

    return changed


def reverse(path):
    path.write_text(path.read_text()[::-1])


@pytest.mark.parametrize(
    ("change", "work"),
    [
        (lambda path: os.utime(path, (1, 1)), []),
        (lambda path: path.rename(path.with_name("moved.txt")), []),
        (reverse, ALL_WORK),
        (keep_times(lambda path: path.write_text(path.read_text() * 2)), ALL_WORK),
        (keep_times(reverse), []),  # trusted by size and time: it is not even read
    ],
    ids=["touched", "moved", "same size", "same time", "same size and time"],
)
def test_only_changed_text_is_tokenized_again(write_text, load, progress, tmp_path, change, work):
    path = write_text("a.txt", 30)
    first = load(path=path)
    assert done(progress) == ALL_WORK
    change(tmp_path / "a.txt")
    second = load(path=str(tmp_path / "*.txt"))
    assert done(progress) == work
    assert (second.fingerprint == first.fingerprint) == (not work)
    if not work:
        assert isinstance(second.train[0].tokens, np.memmap)
        np.testing.assert_array_equal(second.train[0].tokens, first.train[0].tokens)
        np.testing.assert_array_equal(second.unigram_counts, first.unigram_counts)


def test_fingerprints_follow_content_and_options_alone(write_text, load, tmp_path):
    a, b = write_text("a.txt", 40), write_text("b.txt", 40, seed=1)
    both, valid = f"{a},{b}", write_text("valid.txt", 5, seed=2)
    options = [{"path": both}, {"path": f"{b},{a}"}, {"path": a}, {"valid_path": valid}]
    options += [{"weights": (1.0, 2.0)}, {"valid_fraction": 0.3}, {"vocab_size": 301}]
    fingerprints = [load(**({"path": both} | fields)).fingerprint for fields in options]
    assert len(set(fingerprints)) == len(options)
    copy = tmp_path / "elsewhere.txt"
    copy.write_text(pathlib.Path(a).read_text())
    there = load(path=str(copy), cache_dir=str(tmp_path / "other_cache"))
    assert there.fingerprint == fingerprints[2]


@pytest.mark.parametrize(
    ("file", "work"),
    [("tokens-*/train0.tokens", ["rebuilding", "tokenized"]),
     ("vocab-*/vocab.txt", ["rebuilding", "reading", "learning"])],
)  # fmt: skip
def test_a_corrupt_cache_is_rebuilt_alike(write_text, load, progress, tmp_path, file, work):
    path = write_text("a.txt", 30)
    first = load(path=path)
    (file,) = (tmp_path / "cache").glob(file)
    content = file.read_bytes()
    file.write_bytes(content[:7] + bytes([content[7] ^ 1]) + content[8:])
    assert load(path=path).fingerprint == first.fingerprint
    assert done(progress) == work
    assert file.read_bytes() == content


def test_a_vocabulary_sees_an_even_sample_of_the_size_asked(write_text, load, progress, tmp_path):
    lines = [letter * 3 + "\n" for letter in "abcdefghij" for _ in range(100)]
    (tmp_path / "a.txt").write_text("".join(lines))
    fields = {"path": str(tmp_path / "a.txt"), "valid_path": write_text("valid.txt", 5)}
    for num_words in (100, 1000):
        corpora = load(**fields, vocab_train_bytes=3 * num_words, vocab_size=60)
        assert set("abcdefghij") <= set(corpora.tokenizer.pieces)
        assert f"learning 60 WordPieces from {num_words:,} words" in progress


def test_a_vocabulary_does_not_see_what_is_held_out(load, tmp_path):
    letters = [chr(0x5D0 + i) for i in range(20)]  # Hebrew: one letter per document
    (tmp_path / "a.txt").write_text("\n\n".join(f"some text and {x}" for x in letters))
    corpora = load(path=str(tmp_path / "a.txt"), valid_fraction=0.4)
    seen = {letter for letter in letters if not is_held_out([f"some text and {letter}"], 0.4)}
    assert 5 < len(seen) < 18
    assert set(corpora.tokenizer.pieces) & set(letters) == seen


def test_tokens_are_those_of_a_given_vocabulary(write_text, load, progress, tmp_path):
    path, vocab = write_text("a.txt", 30), str(tmp_path / "vocab.txt")
    pieces = [*SPECIAL_PIECES, *"aeioulmnrst.", *(f"##{c}" for c in "aeioulmnrst.")]
    counts = []
    for order, size in ((pieces, 29), (pieces[::-1], 29), (pieces, 70_000)):
        WordPiece(order).filled(size).save(vocab)
        corpora = load(path=path, vocab=vocab, vocab_size=size)
        counts.append(corpora.unigram_counts[:29].tolist())
        assert corpora.train[0].tokens.dtype == (np.uint16 if size == 29 else np.int32)
        assert corpora.train[0].num_tokens == sum(counts[-1]) > 0
    assert counts[0] == counts[1][::-1] == counts[2] != counts[1]
    WordPiece([*SPECIAL_PIECES, "."]).save(vocab)
    load(path=path, vocab=vocab, vocab_size=6)
    assert any("of the tokens are [UNK]" in line for line in progress)


def test_tokens_of_bytes_hold_the_text_of_documents(load, write_text, progress, tmp_path):
    path, valid = write_text("a.txt", 30), write_text("valid.txt", 5, seed=1)
    fields = {"path": path, "valid_path": valid, "tokenizer": "byte_bpe", "vocab_size": 290}
    corpora = load(**fields)
    tokenizer, (corpus,) = corpora.tokenizer, corpora.train
    starts = corpus.document_token_starts
    documents = [tokenizer.decode(corpus.tokens[a:b]) for a, b in itertools.pairwise(starts)]
    text = (tmp_path / "a.txt").read_text().removesuffix("\n")
    assert documents == text.split("\n\n")
    num_bytes = len("".join(documents).encode())
    assert tokenizer.num_bytes @ corpora.unigram_counts == num_bytes > corpus.num_tokens
    assert (tokenizer.vocab_size, len(tokenizer.merges)) == (290, 290 - 257)
    assert done(progress) == ["reading", "learning", "tokenized", "tokenized"]
    assert load(**fields).fingerprint == corpora.fingerprint
    assert done(progress) == []
    tokenizer.save(tmp_path / "vocab.json")
    named = load(**fields | {"vocab": str(tmp_path)})
    assert named.fingerprint == corpora.fingerprint
    with pytest.raises(DataError, match="data.tokenizer='byte_bpe', and the config has 'wordp"):
        load(path=path, vocab=str(tmp_path), vocab_size=290)


def test_other_text_to_evaluate_on_leaves_the_training_tokens(write_text, load, progress):
    train = write_text("train.txt", 30)
    first = load(path=train, valid_path=write_text("v1.txt", 5, seed=1))
    second = load(path=train, valid_path=write_text("v2.txt", 6, seed=2))
    assert done(progress) == ["tokenized"]
    assert second.tokenizer.hash == first.tokenizer.hash
    assert second.train[0].fingerprint == first.train[0].fingerprint
    assert first.train[0].num_documents == 30
    assert (first.valid.num_documents, second.valid.num_documents) == (5, 6)
    load(path=train, valid_fraction=0.4)
    assert "learning" in done(progress)  # a vocabulary depends on what is held out of its text


WORDS = [f"word{i % 977}" for i in range(20_000)]
SENTENCES = [" ".join(WORDS[i : i + 20]).capitalize() + "." for i in range(0, len(WORDS), 20)]
BY_TWENTY = ["\n".join(SENTENCES[i : i + 20]) for i in range(0, 1000, 20)]
FEW_DOCUMENTS = {
    "one document": "\n".join(SENTENCES),
    "one line": " ".join(SENTENCES),
    "few documents": "\n\n".join("\n".join(SENTENCES[i::3]) for i in range(3)),
    "no hash is low enough": "\n\n".join(BY_TWENTY),
}


@pytest.mark.parametrize("name", FEW_DOCUMENTS)
def test_few_documents_have_a_part_to_hold_out(load, tmp_path, name):
    (tmp_path / "a.txt").write_text(FEW_DOCUMENTS[name])
    corpora = load(path=str(tmp_path / "a.txt"), valid_fraction=0.02)
    share = corpora.valid.num_tokens / (corpora.valid.num_tokens + corpora.train[0].num_tokens)
    assert corpora.valid.num_documents >= 2  # next-sentence prediction needs another one
    assert corpora.train[0].num_documents >= 2
    assert 0.01 < share < 0.08


@pytest.fixture
def wrapped(write_text, tmp_path):
    """The path of the text of `write_text("a.txt", 40)`, with wrapped lines."""
    documents = read_documents(pathlib.Path(write_text("a.txt", 40)))
    wrapped = ["\n\n".join(textwrap.fill(p, 40) for p in document) for document in documents]
    (tmp_path / "wrapped_a.txt").write_text("\n\n\n".join(wrapped))
    return str(tmp_path / "wrapped_a.txt")


@pytest.mark.parametrize(("newline", "layout"), [("\n", "auto"), ("\r\n", "wrapped")])
def test_wrapped_text_has_the_tokens_of_its_paragraphs(
    load, progress, tmp_path, wrapped, newline, layout
):
    expected = load(path=str(tmp_path / "a.txt"))
    path = pathlib.Path(wrapped)
    path.write_bytes(path.read_bytes().replace(b"\n", newline.encode()))
    corpora = load(path=wrapped, layout=layout)
    notes = [line for line in progress if "are wrapped: a blank line" in line]
    assert [wrapped in note for note in notes] == [True] * (layout == "auto")
    for name in ("tokens", "sentence_starts", "document_starts"):
        found = getattr(corpora.train[0], name)
        np.testing.assert_array_equal(found, getattr(expected.train[0], name))


def test_each_file_has_a_layout_unless_it_is_given(load, progress, tmp_path, wrapped):
    corpora = load(path=str(tmp_path / "*a.txt"), valid_fraction=0.3)
    assert corpora.train[0].num_documents + corpora.valid.num_documents == 80
    lines = load(path=wrapped, layout="paragraphs")
    assert not any("are wrapped" in line for line in progress)
    assert lines.train[0].num_documents > 50  # blank lines end documents now
