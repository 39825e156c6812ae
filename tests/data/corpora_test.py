import collections
import itertools
import lzma
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from sibert_jax.data import DataError, Tokenizer, load_corpora
from sibert_jax.data.documents import is_held_out, split_sentences
from sibert_jax.data.text_files import read_documents


@pytest.fixture
def said():
    return []


@pytest.fixture
def load(said):
    def load(spec):
        said.clear()
        return load_corpora(spec, progress=said.append)

    return load


def was_tokenized(said):
    return any(line.startswith("tokenized") for line in said)


def came_from_the_cache(said):
    return not any(line.startswith(("reading", "learning", "tokenized")) for line in said)


def texts_of(corpus, tokenizer):
    """The documents of a corpus as lists of sentences of pieces."""
    sentences = [
        [tokenizer.pieces[token] for token in corpus.tokens[start:end]]
        for start, end in zip(corpus.sentence_starts, corpus.sentence_starts[1:])
    ]
    starts = corpus.document_starts
    return [sentences[start:end] for start, end in itertools.pairwise(starts)]


def expected_texts(documents, tokenizer):
    return [
        [
            [tokenizer.pieces[i] for i in tokenizer.encode_batch([sentence])[0]]
            for paragraph in document
            for sentence in split_sentences(paragraph)
        ]
        for document in documents
    ]


def test_corpora_hold_the_sentences_of_their_documents(make_spec, write_text, load):
    paths = [write_text("a.txt", 40), write_text("b.txt", 20, seed=1)]
    spec = make_spec(path=",".join(map(str, paths)), weights=(3.0, 1.0))
    corpora = load(spec)
    assert corpora.weights == (3.0, 1.0)
    held_out = []
    for path, corpus in zip(paths, corpora.train, strict=True):
        documents = list(read_documents(path))
        kept = [document for document in documents if not is_held_out(document, 0.2)]
        held_out += [document for document in documents if is_held_out(document, 0.2)]
        assert texts_of(corpus, corpora.tokenizer) == expected_texts(kept, corpora.tokenizer)
        assert corpus.tokens.dtype == np.uint16
        assert corpus.tokens.shape == (corpus.num_tokens,)
    assert 0 < len(held_out) < 30
    assert texts_of(corpora.valid, corpora.tokenizer) == expected_texts(held_out, corpora.tokenizer)
    counts = collections.Counter(
        token for corpus in corpora.train for token in corpus.tokens.tolist()
    )
    assert corpora.unigram_counts.dtype == np.int64
    assert {i: n for i, n in enumerate(corpora.unigram_counts.tolist()) if n} == counts


def test_named_held_out_text_is_all_and_only_what_is_held_out(make_spec, write_text, load):
    train, valid = write_text("train.txt", 12), write_text("valid.txt", 5, seed=1)
    corpora = load(make_spec(path=str(train), valid_path=str(valid)))
    assert corpora.train[0].num_documents == 12
    assert corpora.valid.num_documents == 5


def test_large_vocabularies_are_stored_in_32_bits(make_spec, write_text, load, tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz."]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    pieces += [f"[unused{i}]" for i in range(70_000 - len(pieces))]
    Tokenizer(pieces).save(tmp_path / "vocab.txt")
    corpora = load(
        make_spec(
            path=str(write_text("a.txt", 30)), vocab=str(tmp_path / "vocab.txt"), vocab_size=70_000
        )
    )
    assert corpora.train[0].tokens.dtype == np.int32
    assert corpora.train[0].num_tokens == corpora.unigram_counts.sum() > 0


def test_a_second_load_maps_what_the_first_one_made(make_spec, write_text, load, said):
    spec = make_spec(path=str(write_text("a.txt", 30)))
    first = load(spec)
    assert was_tokenized(said)
    second = load(spec)
    assert came_from_the_cache(said)
    assert isinstance(second.train[0].tokens, np.memmap)
    assert second.fingerprint == first.fingerprint
    assert second.tokenizer.hash == first.tokenizer.hash
    np.testing.assert_array_equal(second.train[0].tokens, first.train[0].tokens)
    np.testing.assert_array_equal(second.unigram_counts, first.unigram_counts)


def test_two_machines_make_the_same_corpora(make_spec, write_text, load, tmp_path):
    path = write_text("a.txt", 30)
    here = load(make_spec(path=str(path)))
    moved = tmp_path / "elsewhere.txt"
    path.rename(moved)
    there = load(make_spec(path=str(moved), cache_dir=str(tmp_path / "other_cache")))
    assert here.fingerprint == there.fingerprint


def test_moved_or_touched_text_is_not_tokenized_again(make_spec, write_text, load, said, tmp_path):
    path = write_text("a.txt", 30)
    load(make_spec(path=str(path)))
    moved = path.rename(tmp_path / "moved.txt")
    os.utime(moved, (1, 1))
    load(make_spec(path=str(moved)))
    assert came_from_the_cache(said)


def test_changed_text_is_noticed_even_at_the_same_size(make_spec, write_text, load, said):
    path = write_text("a.txt", 30)
    spec = make_spec(path=str(path))
    first = load(spec)
    text = path.read_text()
    path.write_text(text[::-1])
    second = load(spec)
    assert was_tokenized(said)
    assert second.fingerprint != first.fingerprint
    path.write_text(text)
    assert load(spec).fingerprint == first.fingerprint
    assert came_from_the_cache(said)


def test_options_that_change_the_corpora_change_the_fingerprint(
    make_spec, write_text, load, tmp_path
):
    a, b = str(write_text("a.txt", 40)), str(write_text("b.txt", 40, seed=1))
    valid = str(write_text("valid.txt", 5, seed=2))
    specs = [
        make_spec(path=f"{a},{b}"),
        make_spec(path=f"{b},{a}"),
        make_spec(path=a),
        make_spec(path=f"{a},{b}", weights=(1.0, 2.0)),
        make_spec(path=f"{a},{b}", valid_fraction=0.3),
        make_spec(path=f"{a},{b}", valid_path=valid),
        make_spec(path=f"{a},{b}", vocab_size=301),
    ]
    assert len({load(spec).fingerprint for spec in specs}) == len(specs)


def test_a_corrupt_cache_is_rebuilt_to_the_same_tokens(make_spec, write_text, load, said, tmp_path):
    spec = make_spec(path=str(write_text("a.txt", 30)))
    first = load(spec)
    tokens = first.train[0].tokens.copy()
    (tokens_file,) = (tmp_path / "cache").glob("tokens-*/train0.tokens")
    content = bytearray(tokens_file.read_bytes())
    content[7] ^= 1
    tokens_file.write_bytes(content)
    second = load(spec)
    assert any("rebuilding the corrupt cache" in line and "train0.tokens" in line for line in said)
    np.testing.assert_array_equal(second.train[0].tokens, tokens)
    assert second.fingerprint == first.fingerprint


def test_a_lost_vocabulary_is_learnt_again_alike(make_spec, write_text, load, said, tmp_path):
    spec = make_spec(path=str(write_text("a.txt", 30)))
    first = load(spec)
    (vocabulary,) = (tmp_path / "cache").glob("vocab-*/vocab.txt")
    vocabulary.write_text("[PAD]\n")
    second = load(spec)
    assert any("rebuilding the corrupt cache" in line for line in said)
    assert second.tokenizer.pieces == first.tokenizer.pieces
    assert not was_tokenized(said)


def test_a_vocabulary_sees_a_sample_spread_over_the_text(make_spec, write_text, load, tmp_path):
    lines = [letter * 3 + "\n" for letter in "abcdefghij" for _ in range(100)]
    (tmp_path / "a.txt").write_text("".join(lines))
    valid = write_text("valid.txt", 5)
    for share in (0.1, 1.0):
        spec = make_spec(
            path=str(tmp_path / "a.txt"),
            valid_path=str(valid),
            vocab_train_bytes=int(share * 3 * len(lines)),
            vocab_size=60,
        )
        assert set("abcdefghij") <= set(load(spec).tokenizer.pieces)


def test_a_vocabulary_sees_no_more_than_asked(make_spec, write_text, load, said, tmp_path):
    (tmp_path / "a.txt").write_text("nine bytes\n" * 1000)
    valid = str(write_text("valid.txt", 5))
    load(make_spec(path=str(tmp_path / "a.txt"), valid_path=valid, vocab_train_bytes=2000))
    assert "learning 300 WordPieces from 400 words" in said


def test_a_vocabulary_does_not_see_what_is_held_out(make_spec, load, tmp_path):
    letters = [chr(0x5D0 + i) for i in range(20)]  # Hebrew: one letter a document
    (tmp_path / "a.txt").write_text("\n\n".join(f"some text and {x}" for x in letters))
    corpora = load(make_spec(path=str(tmp_path / "a.txt"), valid_fraction=0.4))
    seen = {letter for letter in letters if not is_held_out([f"some text and {letter}"], 0.4)}
    assert 5 < len(seen) < 18
    assert set(corpora.tokenizer.pieces) & set(letters) == seen


def test_another_vocabulary_of_the_same_size_makes_other_tokens(
    make_spec, write_text, load, tmp_path
):
    path = str(write_text("a.txt", 30))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"aeioulmnrst."]
    pieces += [f"##{piece}" for piece in pieces[5:]]
    counts = []
    for order in (pieces, pieces[::-1]):
        Tokenizer(order).save(tmp_path / "vocab.txt")
        spec = make_spec(path=path, vocab=str(tmp_path / "vocab.txt"), vocab_size=len(pieces))
        counts.append(load(spec).unigram_counts.tolist())
    assert counts[0] == counts[1][::-1] != counts[1]


def test_a_vocabulary_of_another_size_is_refused(make_spec, write_text, load, tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    spec = make_spec(path=str(write_text("a.txt", 9)), vocab=str(vocabulary), vocab_size=7)
    with pytest.raises(DataError, match=r"has 6 tokens but the model wants 7; set model\.vocab"):
        load(spec)


def test_text_that_the_vocabulary_does_not_fit_is_said(make_spec, write_text, load, said, tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n.\n")
    load(make_spec(path=str(write_text("a.txt", 30)), vocab=str(vocabulary), vocab_size=6))
    assert any("of the tokens are [UNK]" in line for line in said)


def test_text_too_small_to_hold_any_out_is_refused(make_spec, write_text, load):
    path = write_text("a.txt", 3)
    with pytest.raises(DataError, match=r"valid_fraction=1e-09 holds out none of the 3 doc.*raise"):
        load(make_spec(path=str(path), valid_fraction=1e-9))
    with pytest.raises(DataError, match=r"data\.path: no document of .*a\.txt is left to train"):
        load(make_spec(path=str(path), valid_fraction=1 - 1e-9))


def test_text_to_train_on_is_not_evaluated_on(make_spec, write_text, load):
    path = write_text("a.txt", 9)
    with pytest.raises(DataError, match=r"valid_path names .*a\.txt, which data\.path trains on"):
        load(make_spec(path=str(path), valid_path=str(path.parent / "*.txt")))


@pytest.mark.parametrize("field", ["path", "valid_path"])
def test_bad_text_is_named_with_its_key_and_leaves_no_cache(
    make_spec, write_text, load, tmp_path, field
):
    bad = tmp_path / "bad.txt.xz"
    bad.write_bytes(lzma.compress(b"A good line.\n" * 5000)[:-40])
    good = write_text("good.txt", 9)
    paths = {"path": str(good), "valid_path": str(good)} | {field: str(bad)}
    with pytest.raises(DataError, match=rf"^data\.{field}: .*bad\.txt\.xz is a truncated or dama"):
        load(make_spec(**paths))
    assert not list((tmp_path / "cache").glob("building-*"))
    files = [file for entry in (tmp_path / "cache").glob("*-*") for file in entry.iterdir()]
    assert not [file for file in files if file.name.startswith("train") and field == "path"]


@pytest.mark.parametrize("field", ["path", "valid_path", "vocab"])
@pytest.mark.parametrize(
    ("value", "content", "wanted"),
    [
        ("absent.txt", None, r"no such file|No such file"),
        ("*.absent", None, r"no file matches the glob|No such file"),
        ("latin.txt", "na\xefve\n".encode("latin-1"), "is not UTF-8: line 1, byte 2"),
        ("zero.txt", b"a\0b", "is not text: line 1 holds a zero byte"),
        ("empty.txt", b"\n", "holds no text|has an empty line 1"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_key(
    make_spec, write_text, load, tmp_path, field, value, content, wanted
):
    if content is not None:
        (tmp_path / value).write_bytes(content)
    text = {"path": write_text("a.txt", 30), "valid_path": write_text("b.txt", 5, seed=1)}
    fields = {key: str(path) for key, path in text.items()} | {field: str(tmp_path / value)}
    with pytest.raises(DataError, match=rf"^data\.{field}: .*({wanted})") as error:
        load(make_spec(**fields))
    assert value in str(error.value)


@pytest.mark.parametrize("source", ["text", "tfds"])
def test_text_that_is_not_named_is_asked_for(make_spec, load, source):
    with pytest.raises(DataError, match=rf'source="{source}" needs data\.path, which is empty; na'):
        load(make_spec(source=source, path=" , "))


def test_other_text_to_evaluate_on_leaves_vocabulary_and_training_tokens(
    make_spec, write_text, load, said
):
    train = str(write_text("train.txt", 30))
    first = load(make_spec(path=train, valid_path=str(write_text("v1.txt", 5, seed=1))))
    second = load(make_spec(path=train, valid_path=str(write_text("v2.txt", 6, seed=2))))
    assert not any(line.startswith("learning") for line in said)
    (tokenized,) = (line for line in said if line.startswith("tokenized"))
    assert "v2.txt" in tokenized
    assert second.tokenizer.hash == first.tokenizer.hash
    assert second.train[0].fingerprint == first.train[0].fingerprint
    assert (first.valid.num_documents, second.valid.num_documents) == (5, 6)
    assert second.fingerprint != first.fingerprint


@pytest.mark.parametrize("change", [{"valid_fraction": 0.4}, {"valid_path": "v.txt"}])
def test_a_vocabulary_depends_on_what_is_held_out_of_its_text(
    make_spec, write_text, load, said, tmp_path, change
):
    path = str(write_text("a.txt", 60))
    write_text("v.txt", 5, seed=1)
    load(make_spec(path=path))
    if "valid_path" in change:
        change = {"valid_path": str(tmp_path / change["valid_path"])}
    load(make_spec(path=path, **change))
    assert any(line.startswith("learning") for line in said)


def test_what_was_found_is_said_each_time(make_spec, write_text, load, said):
    paths = [write_text("a.txt", 40), write_text("b.txt", 20, seed=1)]
    valid = write_text("v.txt", 5, seed=2)
    given = ",".join(map(str, paths))
    for _ in range(2):
        corpora = load(make_spec(path=given, valid_path=str(valid)))
        tokens = sum(corpus.num_tokens for corpus in corpora.train)
        assert f"data.path: 60 documents, {tokens:,} tokens in {paths[0]}, {paths[1]}" in said
        valid_tokens = corpora.valid.num_tokens
        assert f"data.valid_path: 5 documents, {valid_tokens:,} tokens in {valid}" in said
    for _ in range(2):
        held_out = load(make_spec(path=str(paths[0]))).valid
        size = f"{held_out.num_documents} documents, {held_out.num_tokens:,} tokens"
        assert f"data.valid_fraction=0.2: {size} held out of it" in said


@pytest.mark.parametrize("separator", ["glob", ","])
def test_many_files_make_short_lines(make_spec, load, said, tmp_path, separator):
    (tmp_path / "in").mkdir()
    for i in range(120):
        path = tmp_path / f"in/a_name_that_is_not_short_{i:03}.txt"
        path.write_text("\n\n".join(f"It says {i} and {j}." for j in range(9)))
    files = sorted(map(str, (tmp_path / "in").iterdir()))
    load(make_spec(path=str(tmp_path / "in/*.txt") if separator == "glob" else ",".join(files)))
    what = "files" if separator == "glob" else "parts"
    assert any(line.endswith(f"120 {what}, {files[0]} ...") for line in said)
    assert max(map(len, said)) < 300


@pytest.mark.parametrize(
    "text", ["one document", "one line", "few documents", "no hash is low enough"]
)
def test_few_documents_have_a_part_to_hold_out(make_spec, load, tmp_path, text):
    words = [f"word{i % 977}" for i in range(20_000)]
    sentences = [" ".join(words[i : i + 20]).capitalize() + "." for i in range(0, len(words), 20)]
    content = {
        "one document": "\n".join(sentences),
        "one line": " ".join(sentences),
        "few documents": "\n\n".join("\n".join(sentences[i::3]) for i in range(3)),
        "no hash is low enough": "\n\n".join(
            "\n".join(sentences[i : i + 20]) for i in range(0, 1000, 20)
        ),
    }[text]
    (tmp_path / "a.txt").write_text(content)
    corpora = load(make_spec(path=str(tmp_path / "a.txt"), valid_fraction=0.02))
    share = corpora.valid.num_tokens / (corpora.valid.num_tokens + corpora.train[0].num_tokens)
    assert corpora.valid.num_documents >= 2  # next-sentence prediction needs another one
    assert corpora.train[0].num_documents >= 2
    assert 0.01 < share < 0.08


def wrapped(path, layout, newline="\n"):
    """The documents of a file with wrapped lines, written beside it."""
    lines = [
        line
        for document in read_documents(path)
        for paragraph in document
        for line in [*textwrap.wrap(paragraph, 60), *[""] * layout[0]]
        + ([""] * layout[1] if paragraph is document[-1] else [])
    ]
    target = path.with_name(f"wrapped_{path.name}")
    target.write_bytes("".join(line + newline for line in lines).encode())
    return target


@pytest.fixture
def novel(tmp_path):
    """A file of paragraphs of words that mostly begin in lower case."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("aeioulmnrst"), rng.integers(2, 9))) for _ in range(300)]
    documents = [
        [" ".join(rng.choice(words, rng.integers(8, 60))).capitalize() + "." for _ in range(5)]
        for _ in range(40)
    ]
    path = tmp_path / "novel.txt"
    path.write_text("\n\n".join("\n".join(document) for document in documents))
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("layout", ["auto", "wrapped"])
def test_wrapped_text_has_the_tokens_of_its_paragraphs(
    make_spec, load, said, novel, newline, layout
):
    expected = load(make_spec(path=str(novel)))
    path = wrapped(novel, (1, 1), newline)
    for _ in range(2):  # built, and from the cache
        corpora = load(make_spec(path=str(path), layout=layout))
        notes = [line for line in said if line.startswith(f"data.path: wrapped lines in {path}: ")]
        assert len(notes) == (layout == "auto")
    for name in ("tokens", "sentence_starts", "document_starts"):
        np.testing.assert_array_equal(
            getattr(corpora.train[0], name), getattr(expected.train[0], name)
        )
    assert corpora.valid.num_documents == expected.valid.num_documents


def test_the_layout_can_be_given(make_spec, load, said, novel):
    path = str(wrapped(novel, (1, 1)))
    found = load(make_spec(path=path))
    lines = load(make_spec(path=path, layout="paragraphs"))
    assert not any("wrapped" in line and "tokeniz" not in line for line in said if ": wr" in line)
    assert lines.train[0].num_documents > 3 * found.train[0].num_documents
    assert lines.fingerprint != found.fingerprint


def test_each_file_is_judged_by_itself(make_spec, load, said, novel):
    path = wrapped(novel, (1, 1))
    corpora = load(make_spec(path=str(novel.parent / "*novel.txt"), valid_fraction=0.3))
    assert [line for line in said if f"wrapped lines in {path}: " in line]
    assert corpora.train[0].num_documents + corpora.valid.num_documents == 80


PROGRAM = textwrap.dedent("""
    import os, pathlib, signal, sys, time
    from sibert_jax.data import CorpusSpec, load_corpora

    path, cache_dir, kill_at = sys.argv[1:]

    def progress(line):
        if kill_at and line.startswith(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    spec = CorpusSpec(
        source="text", path=path, layout="auto", weights=(), valid_path="", valid_fraction=0.2,
        tfds_split="", tfds_feature="", vocab="", vocab_size=300, vocab_train_bytes=10**6,
        cache_dir=cache_dir,
    )
    print("ready", flush=True)
    sys.stdin.readline()
    print(load_corpora(spec, progress=progress).fingerprint)
""")


def start(path, cache_dir, kill_at=""):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(cache_dir), kill_at],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("kill_at", ["learning", "tokenized"])
def test_a_build_that_was_killed_is_not_trusted(make_spec, write_text, load, tmp_path, kill_at):
    path = write_text("a.txt", 30)
    process = start(path, tmp_path / "cache", kill_at)
    process.communicate("go\n")
    assert process.returncode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob("building-*"))
    assert not list((tmp_path / "cache").glob("tokens-*"))
    after_kill = load(make_spec(path=str(path)))
    clean = load(make_spec(path=str(path), cache_dir=str(tmp_path / "clean")))
    assert after_kill.fingerprint == clean.fingerprint


def test_processes_that_build_at_once_agree(write_text, tmp_path):
    path = write_text("a.txt", 300)
    processes = [start(path, tmp_path / "cache") for _ in range(3)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(printed) == 1
    assert len(list((tmp_path / "cache").glob("tokens-*"))) == 1
    assert not list((tmp_path / "cache").glob("building-*"))
