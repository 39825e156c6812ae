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
from sibert_jax.data.text_files import read_documents
from sibert_jax.data.vocabulary import SPECIAL_PIECES
from sibert_jax.data.vocabulary_training import train_wordpieces


class Given:
    """Builds what the cases below need, in an empty directory."""

    def __init__(self, directory: pathlib.Path, spec, load, text, tokenizer, corpus):
        self.directory, self.spec, self.load, self.text = directory, spec, load, text
        self.tokenizer, self.corpus = tokenizer(99), corpus

    def write(self, name, content):
        path = self.directory / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def document(self, name, content):
        """Reads a file of the given bytes."""
        return list(read_documents(pathlib.Path(self.write(name, content))))

    def load_with(self, key, value):
        """Loads good text but for one key."""
        text = {"path": self.text("good.txt", 30), "valid_path": self.text("v.txt", 5, seed=1)}
        return self.load(**(text | {key: value}))

    def packed(self, documents=((99,),), seq_len=9):
        return PackedExamples(self.corpus(documents), seq_len, self.tokenizer)

    def pairs(self, documents, seq_len):
        return PairExamples(self.corpus(documents), seq_len, self.tokenizer, seed=0)

    def batches(self, **options):
        options = {"global_batch_size": 4, "seed": 0, "mask_rate": 0.2} | options
        return PretrainingBatches(
            self.packed(), self.tokenizer, whole_word=False, shuffle=True, **options
        )

    def bucketed(self, lengths):
        sequences = Sequences.of([np.ones(n, np.int32) for n in lengths], lengths, {}, 0)
        return BucketedBatches(sequences, (4, 8), global_batch_size=2, seed=0, shuffle=True)

    def build(self, error):
        def fail(directory):
            raise error

        return Cache(str(self.directory), print).load_or_build("key", fail)

    def vocabulary(self, *pieces):
        return Tokenizer.load(self.write("vocab.txt", "".join(f"{piece}\n" for piece in pieces)))

    def settings(self, settings):
        self.write("tokenizer_config.json", json.dumps(settings))
        return self.vocabulary(*SPECIAL_PIECES)

    def library(self, change):
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
def given(tmp_path, make_spec, load, write_text, make_tokenizer, make_corpus):
    return Given(tmp_path, make_spec, load, write_text, make_tokenizer, make_corpus)


def added(text, special, i=7):
    return {"id": i, "content": text, "special": special}


def spec(**fields):
    return lambda g: g.spec(**({"path": "a"} | fields))


def document(name, content):
    return lambda g: g.document(name, content)


def load_with(key, name, content=None):
    def load(g):
        path = str(g.directory / name) if content is None else g.write(name, content)
        return g.load_with(key, path)

    return load


def settings(**values):
    return lambda g: g.settings(values)


def library(change):
    return lambda g: g.library(change)


LINES = "\n".join(map(str, range(5000))).encode()
GZIP, XZ = gzip.compress(LINES), lzma.compress(LINES)
LATIN = "naïve\n".encode() + "naïve\n".encode("latin-1")
DAMAGED = r"a\.\w+ is a truncated or damaged \.{} file after .*fetch it again"


def overwritten(content):
    middle = len(content) // 2
    return content[:middle] + b"\xff" * 40 + content[middle + 40 :]


CASES = [
    # Keys
    (spec(source="wikipedia"), "data.source must be one of builtin, text, tfds"),
    (spec(source="builtin"), "takes no data.path"),
    (spec(layout="lines"), "data.layout must be one of auto, paragraphs, wrapped"),
    (spec(source="tfds", layout="wrapped"), 'needs data.source="text", not'),
    (spec(path="a,b", weights=(1.0,)), "holds 1 numbers for 2 corpora"),
    (spec(source="builtin", path="", weights=(1.0, 1.0)), "holds 2 numbers for 1 corpora"),
    (spec(path="a,b", weights=(1.0, 0.0)), "data.weights must be positive"),
    (spec(path="a,b", weights=(1.0, float("nan"))), "data.weights must be positive"),
    (spec(path="a,b", weights=(1.0, float("inf"))), "data.weights must be positive"),
    (spec(valid_fraction=0.0), "data.valid_fraction must lie between 0 and 1"),
    (spec(valid_fraction=1.0), "data.valid_fraction must lie between 0 and 1"),
    (spec(vocab_size=0), "data.vocab_size must be positive"),
    (spec(vocab_train_bytes=0), "data.vocab_train_bytes must be positive"),
    (spec(cache_dir=""), "data.cache_dir must name a directory"),
    (lambda g: g.load(path=" , "), 'data.source="text" needs data.path, which is empty'),
    (lambda g: g.load(source="tfds"), 'data.source="tfds" needs data.path, which is empty'),
    # Text
    (document("a.txt", b""), r"a\.txt holds no text; leave it out"),
    (document("a.txt", b"\n \n\t\n"), r"a\.txt holds no text"),
    (document("a.txt", b"good\n\x7fELF\0\1"), r"a\.txt is not text: line 2 holds a zero byte"),
    (document("a.txt", LATIN), r"a\.txt is not UTF-8: line 2, byte 9 is 0xef .*iconv"),
    (document("a.gz", gzip.compress(LATIN)), r"a\.gz is not UTF-8: line 2, byte 9 is 0xef"),
    (document("a.gz", GZIP[:99]), DAMAGED.format("gz")),
    (document("a.gz", b"plain text"), DAMAGED.format("gz")),
    (document("a.gz", overwritten(GZIP)), DAMAGED.format("gz")),
    (document("a.xz", XZ[:99]), DAMAGED.format("xz")),
    (document("a.xz", b"plain text"), DAMAGED.format("xz")),
    (document("a.xz", overwritten(XZ)), DAMAGED.format("xz")),
    (load_with("path", "none.txt"), r"^data\.path: no such file: '.*/none\.txt'"),
    (load_with("path", "no*.txt"), r"^data\.path: no file matches the glob '.*/no\*\.txt'"),
    (load_with("path", ""), r"^data\.path: .* is a directory; name its files"),
    (load_with("path", "a.txt", LATIN), r"^data\.path: .*a\.txt is not UTF-8"),
    (load_with("valid_path", "none.txt"), r"^data\.valid_path: no such file"),
    (load_with("valid_path", "a.txt", b"a\0b"), r"^data\.valid_path: .*a\.txt is not text"),
    (load_with("valid_path", "a.xz", XZ[:99]), rf"^data\.valid_path: .*{DAMAGED.format('xz')}"),
    (load_with("valid_path", "good.txt"), r"valid_path names .*good\.txt, which data\.path trains"),
    (
        lambda g: g.load(path=g.text("a.txt", 3), valid_fraction=1e-9),
        "valid_fraction=1e-09 holds out none of the 3 documents .*raise it",
    ),
    (
        lambda g: g.load(path=g.text("a.txt", 3), valid_fraction=1 - 1e-9),
        r"data\.path: no document of .*a\.txt is left to train on",
    ),
    # Vocabularies
    (load_with("vocab", "none.txt"), r"^data\.vocab: cannot read .*none\.txt: No such file"),
    (load_with("vocab", "a.txt", LATIN), r"^data\.vocab: .*a\.txt is not UTF-8"),
    (
        load_with("vocab", "a.txt", "\n".join(SPECIAL_PIECES)),
        "has 5 tokens but the model wants 300; set model.vocab_size=5",
    ),
    (
        lambda g: g.vocabulary("[PAD]", "[UNK]", "[CLS]", "a"),
        r"vocab\.txt lacks the special tokens \[SEP\], \[MASK\]",
    ),
    (lambda g: g.vocabulary(*SPECIAL_PIECES, "a", "b", "a"), "has 'a' twice, on lines 6 and 8"),
    (lambda g: g.vocabulary(*SPECIAL_PIECES, "", "b"), r"vocab\.txt has an empty line 6"),
    (settings(do_lower_case="false"), "do_lower_case is 'false', wanted bool"),
    (settings(strip_accents=1), r"tokenizer_config\.json: strip_accents is 1, wanted bool"),
    (settings(tokenizer_class="RobertaTokenizer"), "tokenizer_class is 'RobertaTokenizer', and on"),
    (settings(tokenizer_class="PreTrainedTokenizerFast"), "described by tokenizer.json"),
    (settings(unk_token="<unk>"), "unk_token is '<unk>', and only '.UNK.' can be used"),
    (settings(never_split=["don't"]), 'never_split holds "don\'t"'),
    (settings(do_basic_tokenize=False), "do_basic_tokenize is false"),
    (lambda g: g.settings([1]), r"tokenizer_config\.json holds list, wanted an object"),
    (library(lambda v: v["model"].update(type="BPE")), "model.type is 'BPE'"),
    (library(lambda v: v["model"].update(unk_token="<unk>")), "model.unk_token is '<unk>'"),
    (library(lambda v: v["normalizer"].update(type="NFKC")), "normalizer.type is 'NFKC'"),
    (library(lambda v: v.update(normalizer=None)), "is not of a WordPiece tokenizer"),
    (library(lambda v: v["model"]["vocab"].pop("the")), "ids of model.vocab are not 0, 1, 2"),
    (library(lambda v: v["added_tokens"].append(added("covid", False))), "adds the word 'covid'"),
    (library(lambda v: v["added_tokens"].append(added("[E]", True, 99))), "with the id 99"),
    (
        lambda g: g.write("vocab.txt", "\n".join(SPECIAL_PIECES)) and g.library(lambda v: None),
        r"vocab\.txt and .*tokenizer\.json hold different vocabularies \(5 and 7 tokens\)",
    ),
    (lambda g: train_wordpieces({"ab": 3}, 8), "needs vocab_size of at least 9, not 8"),
    # Examples and batches
    (lambda g: g.packed(seq_len=2), "data.seq_len=2 leaves no room"),
    (lambda g: g.packed([[5]]), "5 tokens, too few for one example of data.seq_len=9"),
    (lambda g: g.pairs([[9, 9]], 9), r"draws sentences from other documents, .* has 1;"),
    (lambda g: g.pairs([[9], [9]], 7), "data.seq_len=7 is too short for pairs"),
    (lambda g: WeightedExamples([], (), 0), "no examples to mix"),
    (lambda g: WeightedExamples([g.packed()] * 2, (1,), 0), "1 weights were given for 2 corpora"),
    (lambda g: WeightedExamples([g.packed()], (0,), 0), "must be positive"),
    (
        lambda g: WeightedExamples([g.packed(seq_len=n) for n in (8, 9)], (), 0),
        r"several lengths: \[8, 9\]",
    ),
    (lambda g: g.batches(global_batch_size=0), "global_batch_size must be positive, found 0"),
    (lambda g: g.batches(global_batch_size=15), "gives 14 examples of 9 tokens, fewer than one"),
    (lambda g: g.batches(seed=-1), "seed must be in"),
    (lambda g: g.batches(seed=2**64), "seed must be in"),
    (lambda g: g.batches(mask_rate=0.0), "task.mask_rate must lie between 0 and 1"),
    (lambda g: g.batches(mask_rate=1.0), "task.mask_rate must lie between 0 and 1"),
    (lambda g: g.batches(mask_rate=float("nan")), "task.mask_rate must lie between 0 and 1"),
    (lambda g: g.bucketed([3, 9]), "has 9 tokens, more than the 8 of the longest batch"),
    # The cache
    (lambda g: g.load(path=g.text("a", 3), cache_dir=g.write("f", "")), "write data.cache_dir="),
    (lambda g: Cache(g.write("file", "") + "/x", print), r"write data\.cache_dir='.*file/x' \(Not"),
    (lambda g: g.build(OSError(28, "No space left")), r"data\.cache_dir=.*No space.* has room"),
    (
        lambda g: Cache(str(g.directory), print).source_sha256(g.directory / "gone.txt"),
        r"cannot read .*gone\.txt: No such file",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: re.sub(r"\W+", " ", CASES[i][1]))
def test_bad_input_is_named(given, case):
    use, words = CASES[case]
    with pytest.raises(DataError, match=words):
        use(given)


@pytest.mark.parametrize("key", ["path", "valid_path"])
def test_bad_text_leaves_nothing_half_built(given, key):
    with pytest.raises(DataError, match="truncated"):
        given.load_with(key, given.write("a.xz", lzma.compress(b"A good line.\n" * 5000)[:-40]))
    assert not list(given.directory.glob("cache/building-*"))
    assert len(list(given.directory.glob("cache/tokens-*"))) == (key == "valid_path")
