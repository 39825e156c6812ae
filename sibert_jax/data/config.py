"""Config keys under `data`: text for pretraining, or labeled examples."""

import dataclasses

from sibert_jax.data.python_docs import builtin_source
from sibert_jax.data.tables import FORMATS
from sibert_jax.data.text_files import LAYOUTS, text_source
from sibert_jax.data.tokenizers.byte_bpe import ByteBPE
from sibert_jax.data.tokenizers.word_piece import WordPiece
from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key


def _tfds_source(c, paths, key, cache, progress):
    from sibert_jax.data.tfds_source import tfds_source  # rarely needed

    return tfds_source(paths, c.tfds_split, c.tfds_feature, key)


# Value of `data.source` -> function that returns the source of some paths, from the config, the
# paths, the key that names them, the cache and a function for progress messages.
SOURCES = {
    "builtin": lambda c, paths, key, cache, progress: builtin_source(cache, progress),
    "text": lambda c, paths, key, cache, progress: text_source(paths, key, c.layout),
    "tfds": _tfds_source,
}


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """Text for pretraining, its held-out part and its vocabulary."""

    source: str = key(
        "builtin", "source of the text; builtin: English in the Python installation; text: text "
        "files; tfds: prepared TensorFlow Datasets", choices=tuple(SOURCES),
    )  # fmt: skip
    path: str = key(
        "", "comma-separated corpora; text: files or globs; tfds: prepared directories, DIR or "
        "DIR:SPLIT",
    )  # fmt: skip
    layout: str = key(
        "auto", "meaning of a blank line in text files; paragraphs: ends a document; wrapped: "
        "ends a paragraph; auto: decided for each file", choices=LAYOUTS,
    )  # fmt: skip
    weights: tuple[float, ...] = key(
        (), "share of each corpus in the training data; (): in proportion to size"
    )
    valid_path: str = key("", "held-out text; empty: hold out valid_fraction of the documents")
    valid_fraction: float = key(
        0.02, "fraction of the documents to hold out, in (0, 1); chosen by a hash of the text"
    )
    tfds_split: str = key("train", "split to read where data.path does not name one")
    tfds_feature: str = key("text", "name of the feature that holds the text")
    tokenizer: str = key(
        "wordpiece", "tokenization: WordPiece (BERT) or byte-level BPE (GPT-2)",
        choices=(WordPiece.kind, ByteBPE.kind),
    )  # fmt: skip
    vocab: str = key(
        "", "vocabulary file (vocab.txt, or vocab.json with merges.txt beside it) or its "
        "directory; empty: that of checkpoint.init_from, else train one",
        may_change=True,  # a changed vocabulary changes the fingerprint in the checkpoint
    )  # fmt: skip
    vocab_train_bytes: int = key(
        20_000_000, "maximum bytes of text that the vocabulary is trained on", low=1
    )
    cache_dir: str = key(
        "~/.cache/sibert_jax", "directory for cached tokens and trained vocabularies",
        may_change=True, per_process=True,
    )  # fmt: skip
    seq_len: int | None = key(
        None, "tokens per example; None: 128, or model.max_len if less", low=8
    )

    def __post_init__(self):
        check("data", self)
        if self.source != "text" and self.layout == "wrapped":
            raise ConfigError(
                f'data.layout="wrapped" needs data.source="text", not {self.source!r}.'
            )
        if self.source == "builtin" and self.path:
            raise ConfigError(f'data.source="builtin" takes no data.path, found {self.path!r}.')
        num_corpora = max(1, len(split_paths(self.path)))
        if self.weights and len(self.weights) != num_corpora:
            raise ConfigError(
                f"data.weights holds {len(self.weights)} numbers for {num_corpora} corpora; give "
                "one per corpus, or () to weight them by size."
            )
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ConfigError(f"data.weights must be positive, found {self.weights}.")
        check_valid_fraction(self.valid_path, self.valid_fraction)
        if not self.cache_dir:
            raise ConfigError("data.cache_dir is empty; name a directory.")

    @property
    def paths(self) -> tuple[str, ...]:
        """The parts of `path`, one per corpus."""
        return split_paths(self.path)

    def check_path(self) -> None:
        """Checks that the text to load is named.

        Raises:
          ConfigError: `path` is empty and `source` is not "builtin".
        """
        example = {"text": "text/*.txt", "tfds": "DIRECTORY:train"}
        if self.source in example and not self.paths:
            raise ConfigError(
                f'data.source="{self.source}" needs data.path, which is empty; name your text, as '
                f"in --config.data.path='{example[self.source]}'."
            )


@dataclasses.dataclass(frozen=True)
class LabeledConfig:
    """Labeled examples for fine-tuning, and their vocabulary."""

    source: str = key(
        "files", "type of all data paths: files, or prepared TensorFlow Datasets",
        choices=("files", "tfds"),
    )  # fmt: skip
    path: str = key("", "training file or glob; tfds: prepared directory DIR:SPLIT")
    valid_path: str = key("", "file to evaluate on; empty: hold out valid_fraction of path")
    valid_fraction: float = key(
        0.1, "fraction of each class to hold out, in (0, 1); chosen by a hash of the text"
    )
    format: str = key(
        "auto", "file format; auto: by file name; tsv: without quoting; label_first: each line is "
        "a label, whitespace and a text", choices=FORMATS,
    )  # fmt: skip
    header: bool = key(True, "whether the first row of a CSV or TSV file names the columns")
    text: str = key(
        "", "column of the text, or two columns separated by a comma; names, or numbers from 0; "
        "empty: text, or the columns of task.dataset",
    )  # fmt: skip
    label: str = key(
        "", "column of the label, a name or a number from 0; empty: label, or the column of "
        "task.dataset",
    )  # fmt: skip
    test_path: str = key(
        "", "comma-separated files to predict after the last step", may_change=True
    )
    vocab: str = key(
        "", "WordPiece vocabulary file; empty: that of checkpoint.init_from", may_change=True
    )
    seq_len: int | None = key(
        None, "maximum tokens per example; longer ones are truncated; None: 128, or model.max_len "
        "if less", low=8,
    )  # fmt: skip
    num_seq_lens: int = key(
        12, "maximum number of different lengths that batches are padded to", low=1
    )

    def __post_init__(self):
        check("data", self)
        if not self.path:
            raise ConfigError("data.path is empty; name the training examples.")
        check_valid_fraction(self.valid_path, self.valid_fraction)

    @property
    def test_paths(self) -> tuple[str, ...]:
        """The parts of `test_path`."""
        return split_paths(self.test_path)


def check_valid_fraction(valid_path: str, valid_fraction: float) -> None:
    """Raises ConfigError if a fraction that is used lies outside (0, 1)."""
    if not valid_path and not 0 < valid_fraction < 1:
        raise ConfigError(
            "data.valid_fraction must lie between 0 and 1 where data.valid_path is empty, found "
            f"{valid_fraction}."
        )


def split_paths(text: str) -> tuple[str, ...]:
    """Splits a comma-separated list of paths, dropping blanks.

    Example:
      >>> split_paths("wiki.txt, books_*.txt")
      ('wiki.txt', 'books_*.txt')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())
