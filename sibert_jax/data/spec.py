"""What a corpus is made of."""

import dataclasses

from sibert_jax.data.text_files import LAYOUTS
from sibert_jax.errors import DataError

SOURCES = ("builtin", "text", "tfds")


@dataclasses.dataclass(frozen=True)
class CorpusSpec:
    """Names the text, its held-out part and its vocabulary; validated when it is made.

    Args:
      source: "builtin" (English found in any Python installation), "text" (files) or "tfds".
      path: for "text" files or globs, for "tfds" prepared directories (`DIR` or `DIR:SPLIT`);
        comma-separated, one corpus each; "" for "builtin", and where no text is loaded.
      layout: what the lines of a text file are: "paragraphs" (a blank line ends a document),
        "wrapped" parts of them (a blank line ends a paragraph), or "auto": what they look like.
      weights: how often each corpus is drawn, one positive number a corpus; () draws in proportion
        to size, each example once an epoch.
      valid_path: like `path`, all of it one corpus; "" holds out `valid_fraction` instead.
      valid_fraction: the share of the documents to hold out, in (0, 1), chosen by a hash of their
        text; not read when `valid_path` is given.
      tfds_split: the split that a `DIR` without `:SPLIT` means, such as "train".
      tfds_feature: the feature that holds the text, such as "text".
      vocab: a vocabulary file, one piece a line; "" trains one on the training text.
      vocab_size: the number of pieces the model has.
      vocab_train_bytes: how much text a trained vocabulary sees, spread evenly over the corpora.
      cache_dir: where tokens and trained vocabularies are kept; "~" is expanded.

    Raises:
      DataError: if a field has a value outside its range or the fields do not fit together.
    """

    source: str
    path: str
    layout: str
    weights: tuple[float, ...]
    valid_path: str
    valid_fraction: float
    tfds_split: str
    tfds_feature: str
    vocab: str
    vocab_size: int
    vocab_train_bytes: int
    cache_dir: str

    def __post_init__(self):
        if self.source not in SOURCES:
            raise DataError(f"data.source must be one of {', '.join(SOURCES)}, not {self.source!r}")
        if self.layout not in LAYOUTS:
            raise DataError(f"data.layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}")
        if self.source != "text" and self.layout == "wrapped":
            raise DataError(f'data.layout="wrapped" needs data.source="text", not {self.source!r}')
        if self.source == "builtin" and self.path:
            raise DataError(f'data.source="builtin" takes no data.path, found {self.path!r}')
        num_corpora = max(1, len(self.paths))
        if self.weights and len(self.weights) != num_corpora:
            raise DataError(
                f"data.weights holds {len(self.weights)} numbers for {num_corpora} corpora; "
                "give one a corpus, or () for in proportion to size"
            )
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise DataError(f"data.weights must be positive, found {self.weights}")
        if not self.valid_path and not 0 < self.valid_fraction < 1:
            raise DataError(
                f"data.valid_fraction must lie between 0 and 1 where data.valid_path is empty, "
                f"found {self.valid_fraction}"
            )
        for name in ("vocab_size", "vocab_train_bytes"):
            if getattr(self, name) < 1:
                raise DataError(f"data.{name} must be positive, found {getattr(self, name)}")
        if not self.cache_dir:
            raise DataError("data.cache_dir must name a directory, found an empty string")

    def check_path(self) -> None:
        """Refuses to load text that is not named.

        Raises:
          DataError: if `path` is empty and `source` is not "builtin".
        """
        example = {"text": "text/*.txt", "tfds": "DIRECTORY:train"}
        if self.source in example and not self.paths:
            raise DataError(
                f'data.source="{self.source}" needs data.path, which is empty; name your text, as '
                f"in --config.data.path='{example[self.source]}'"
            )

    @property
    def paths(self) -> tuple[str, ...]:
        """The parts of `path`, one a corpus."""
        return split_paths(self.path)


def split_paths(text: str) -> tuple[str, ...]:
    """Splits a comma-separated list of paths, dropping blanks.

    Example:
      >>> split_paths("wiki.txt, books_*.txt")
      ('wiki.txt', 'books_*.txt')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())
