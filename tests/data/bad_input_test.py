"""Bad input ends with one sentence that names the key or the file."""

import gzip
import json
import lzma
import pathlib
import re

import numpy as np
import pytest
import tokenizers

from sibert_jax.data import (
    BucketedBatches,
    DataError,
    PackedExamples,
    PairExamples,
    PretrainingBatches,
    Sequences,
    Tokenizer,
    WeightedExamples,
)
from sibert_jax.data.cache import Cache
from sibert_jax.data.tokenizers.vocabulary import SPECIAL_PIECES
from sibert_jax.errors import ConfigError

from .conftest import make_corpus, make_tokenizer


class Given:
    """Builds what the cases below need, in an empty directory."""

    tokenizer = make_tokenizer(99)

    def __init__(self, directory: pathlib.Path, load, text):
        self.directory, self.load, self.text = directory, load, text
        self.cache = Cache(str(directory / "cache"), print)

    def write(self, name, content):
        path = self.directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def packed(self, documents=((99,),), seq_len=9):
        return PackedExamples(make_corpus(documents), seq_len, self.tokenizer)

    def pairs(self, documents, seq_len):
        return PairExamples(make_corpus(documents), seq_len, self.tokenizer, seed=0)

    def mixed(self, *seq_lens, weights=()):
        return WeightedExamples([self.packed(seq_len=n) for n in seq_lens], weights, seed=0)

    def bucketed(self, lengths):
        sequences = Sequences.of([np.ones(n, np.int32) for n in lengths], lengths, {}, 0)
        return BucketedBatches(sequences, (4, 8), global_batch_size=2, seed=0, shuffle=True)

    def vocabulary(self, *pieces):
        return Tokenizer.load(self.write("vocab.txt", "".join(f"{piece}\n" for piece in pieces)))

    def library(self, change=lambda values: None):
        """Loads a directory with a `tokenizer.json` that was changed."""
        ids = {piece: i for i, piece in enumerate([*SPECIAL_PIECES, "the", "a"])}
        model = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
        model.normalizer = tokenizers.normalizers.BertNormalizer()
        model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        values = json.loads(model.to_str())
        change(values)
        self.write("tokenizer.json", json.dumps(values))
        return Tokenizer.load(self.directory)


@pytest.fixture
def given(tmp_path, load, write_text):
    return Given(tmp_path, load, write_text)


def key(**fields):
    """Loads good text but for some keys."""
    return lambda g: g.load(**({"path": g.text("good.txt", 3)} | fields))


def file(name, content=None, key="path"):
    """Loads good text but for a file of the given bytes, or none."""

    def load(g):
        text = {"path": g.text("good.txt", 30), "valid_path": g.text("v.txt", 5, seed=1)}
        path = str(g.directory / name) if content is None else g.write(name, content)
        return g.load(**(text | {key: path}))

    return load


def batches(**options):
    options = {"global_batch_size": 4, "seed": 0, "mask_rate": 0.2} | options
    options |= {"whole_word": False, "shuffle": True}
    return lambda g: PretrainingBatches(g.packed(), g.tokenizer, **options)


def settings(values):
    """Loads a vocabulary with a `tokenizer_config.json` beside it."""
    text = json.dumps(values)
    return lambda g: g.write("tokenizer_config.json", text) and g.vocabulary(*SPECIAL_PIECES)


def library(change):
    return lambda g: g.library(change)


def added(text, special, i=7):
    token = {"id": i, "content": text, "special": special}
    return library(lambda v: v["added_tokens"].append(token))


def disk_full(directory):
    raise OSError(28, "No space left")


LINES = "\n".join(map(str, range(5000))).encode()
GZIP = gzip.compress(LINES)
LATIN = "naïve\n".encode() + "naïve\n".encode("latin-1")
NOT_UTF8 = r"is not UTF-8: line 2, byte 9 is 0xef .*iconv"
DAMAGED = r"^data\.path: .*a\.\w+ is a truncated or damaged \.\w+ file after .*fetch it again"
FIVE = "\n".join(SPECIAL_PIECES)


CASES = [
    # Keys
    (key(source="wikipedia"), "data.source='wikipedia' is unknown; choose one of"),
    (key(source="builtin"), "takes no data.path"),
    (key(layout="lines"), "data.layout='lines' is unknown; choose one of"),
    (key(source="tfds", layout="wrapped"), 'needs data.source="text", not'),
    (key(path="a,b", weights=(1.0,)), "holds 1 numbers for 2 corpora"),
    (key(path="a,b", weights=(1.0, 0.0)), "data.weights must be positive"),
    (key(valid_fraction=0.0), "data.valid_fraction must lie between 0 and 1"),
    (key(valid_fraction=1e-9), "valid_fraction=1e-09 holds out none of the 3 documents .*raise it"),
    (key(valid_fraction=1 - 1e-9), r"data\.path: no document of .*good\.txt is left to train on"),
    (key(vocab_size=8), "needs vocab_size of at least 9, not 8"),
    (key(vocab_train_bytes=0), "data.vocab_train_bytes=0 must be at least 1"),
    (key(cache_dir=""), "data.cache_dir is empty; name a directory"),
    (key(cache_dir="/dev/null/x"), r"cannot write data\.cache_dir='/dev/null/x' \(Not a dir"),
    (key(path=" , "), 'data.source="text" needs data.path, which is empty'),
    # Text
    (file("a.txt", b""), r"^data\.path: .*a\.txt holds no text; leave it out"),
    (file("a.txt", b"good\n\x7fELF\0\1"), r"a\.txt is not text: line 2 holds a zero byte"),
    (file("a.txt", LATIN), rf"^data\.path: .*a\.txt {NOT_UTF8}"),
    (file("a.gz", GZIP[:99]), DAMAGED),
    (file("a.gz", GZIP[:50] + b"\xff" * 40 + GZIP[90:]), DAMAGED),
    (file("a.xz", lzma.compress(LINES)[:99]), DAMAGED),
    (file("a.xz", b"plain text"), DAMAGED),
    (file("none.txt"), r"^data\.path: no such file: '.*/none\.txt'"),
    (file("no*.txt"), r"^data\.path: no file matches the glob '.*/no\*\.txt'"),
    (file(""), r"^data\.path: .* is a directory; name its files"),
    (file("none.txt", key="valid_path"), r"^data\.valid_path: no such file"),
    (file("good.txt", key="valid_path"), r"valid_path names .*good\.txt, which data\.path trains"),
    # Vocabularies
    (file("none.txt", key="vocab"), r"^data\.vocab: cannot read .*none\.txt: No such file"),
    (file("a.txt", LATIN, "vocab"), rf"^data\.vocab: .*a\.txt {NOT_UTF8}"),
    (file("a.txt", FIVE, "vocab"), "has 5 tokens but model.vocab_size=300; set model.vocab_size=5"),
    (file("a.txt", FIVE[:-7], "vocab"), r"^data\.vocab: .*lacks the special tokens \[MASK\]"),
    (lambda g: g.vocabulary(*SPECIAL_PIECES, "a", "b", "a"), "has 'a' twice, on lines 6 and 8"),
    (lambda g: g.vocabulary(*SPECIAL_PIECES, "", "b"), r"vocab\.txt has an empty line 6"),
    (settings({"do_lower_case": "false"}), "do_lower_case is 'false', wanted bool"),
    (settings({"tokenizer_class": "RobertaTokenizer"}), "class is 'RobertaTokenizer', but only"),
    (settings({"tokenizer_class": "PreTrainedTokenizerFast"}), "described by tokenizer.json"),
    (settings({"unk_token": "<unk>"}), "unk_token is '<unk>', but only '.UNK.' is supported"),
    (settings({"never_split": ["don't"]}), 'never_split holds "don\'t"'),
    (settings({"do_basic_tokenize": False}), "do_basic_tokenize is false"),
    (settings([1]), r"tokenizer_config\.json holds list, expected a JSON object"),
    (library(lambda v: v["model"].update(type="Unigram")), "model.type is 'Unigram'"),
    (library(lambda v: v["model"].update(type="BPE")), "type is 'BertPreTokenizer', but only"),
    (library(lambda v: v["model"].update(unk_token="<unk>")), "model.unk_token is '<unk>'"),
    (library(lambda v: v["normalizer"].update(type="NFKC")), "normalizer.type is 'NFKC'"),
    (library(lambda v: v.update(normalizer=None)), "is not a file of a WordPiece tokenizer"),
    (library(lambda v: v["model"]["vocab"].pop("the")), "ids of model.vocab must be 0, 1, 2"),
    (added("covid", special=False), "adds the token 'covid'"),
    (added("[E]", special=True, i=99), "with the id 99"),
    (lambda g: g.write("vocab.txt", FIVE) and g.library(), r"different vocabularies \(5 and 7 tok"),
    # Examples and batches
    (lambda g: g.packed(seq_len=2), "data.seq_len=2 leaves no room"),
    (lambda g: g.packed([[5]]), "5 tokens, too few for one example of data.seq_len=9"),
    (lambda g: g.pairs([[9, 9]], 9), r"draws sentences from other documents, .* has 1;"),
    (lambda g: g.pairs([[9], [9]], 7), "data.seq_len=7 is too short for pairs"),
    (lambda g: g.mixed(), "no examples to mix"),
    (lambda g: g.mixed(9, 9, weights=(1,)), "1 weights were given for 2 corpora"),
    (lambda g: g.mixed(9, weights=(0,)), "must be positive"),
    (lambda g: g.mixed(8, 9), r"several lengths: \[8, 9\]"),
    (batches(global_batch_size=0), "train.global_batch_size must be positive, found 0"),
    (batches(global_batch_size=15), "gives 14 examples of 9 tokens, fewer than one"),
    (batches(seed=-1), "seed must be in"),
    (batches(mask_rate=0.0), "task.mask_rate must lie between 0 and 1"),
    (lambda g: g.bucketed([3, 9]), "has 9 tokens, more than the 8 of the longest batch"),
    (lambda g: g.cache.load_or_build("key", disk_full), r"data\.cache_dir=.*No space.* has room"),
    (lambda g: g.cache.source_sha256(g.directory / "gone"), r"cannot read .*gone: No such file"),
]


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: re.sub(r"\W+", " ", CASES[i][1]))
def test_bad_input_is_named(given, case):
    use, words = CASES[case]
    with pytest.raises((ConfigError, DataError), match=words):
        use(given)


@pytest.mark.parametrize("key", ["path", "valid_path"])
def test_bad_text_leaves_nothing_half_built(given, key):
    with pytest.raises(DataError, match="truncated"):
        file("a.xz", lzma.compress(b"A good line.\n" * 5000)[:-40], key)(given)
    assert not list(given.directory.glob("cache/building-*"))
    assert len(list(given.directory.glob("cache/tokens-*"))) == (key == "valid_path")
