"""WordPiece vocabulary files: the WordPieces and the text cleaning.

The files are Hugging Face's: `vocab.txt`, `tokenizer_config.json` beside it, and `tokenizer.json`
if a directory has no `vocab.txt`.
"""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple, TypeAlias

from sibert_jax.data.text_files import read_lines
from sibert_jax.errors import DataError

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
MAX_WORD_CHARS = 100  # longer words become [UNK]
MIN_PAIR_COUNT = 2  # of a pair of tokens merged in training
PIECES, SETTINGS, LIBRARY = "vocab.txt", "tokenizer_config.json", "tokenizer.json"

# Classes of `transformers` that clean and split text like BERT.
BERT_CLASSES = (
    *("BertTokenizer", "BertTokenizerFast"),
    *("DistilBertTokenizer", "DistilBertTokenizerFast"),
    *("ElectraTokenizer", "ElectraTokenizerFast"),
)
# Classes whose behavior is defined by `tokenizer.json`.
LIBRARY_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """Text cleaning before the split into words; the default is that of uncased BERT.

    Args:
      do_lower_case: whether to convert to lower case.
      strip_accents: whether to remove accents from letters.
      tokenize_chinese_chars: whether every Chinese character is a separate word.
    """

    do_lower_case: bool = True
    strip_accents: bool = True
    tokenize_chinese_chars: bool = True


UNCASED = Cleaning()

AddedToken: TypeAlias = tuple[int, str, bool]  # id, text, whether it is special


class Vocabulary(NamedTuple):
    """WordPieces in id order, and the cleaning they were learned with."""

    pieces: tuple[str, ...]
    cleaning: Cleaning


def read_vocabulary(path: pathlib.Path) -> Vocabulary:
    """Reads a file with one WordPiece per line, or the vocabulary of a Hugging Face directory.

    `tokenizer_config.json` beside the file sets the cleaning; the default is that of uncased BERT.
    In a directory, `tokenizer.json` supplies the settings that `tokenizer_config.json` lacks, and
    the WordPieces if there is no `vocab.txt`.

    Raises:
      DataError: a file is missing or broken, or describes a tokenizer other than BERT's.
    """
    if not path.is_dir():
        pieces = tuple(read_lines(path))
        settings = _settings(path.parent)
        if settings.tokenizer_class in LIBRARY_CLASSES:
            raise DataError(
                f"{settings.path}: a {settings.tokenizer_class} is described by {LIBRARY}; name "
                f"the directory {path.parent} instead of {path.name}"
            )
        return Vocabulary(pieces, settings.cleaning(UNCASED))
    settings, lines, library = _settings(path), path / PIECES, path / LIBRARY
    if library.is_file():
        pieces, added, cleaning = _read_library(library)
        if lines.is_file() and (found := tuple(read_lines(lines))) != pieces:
            raise DataError(
                f"{lines} and {library} hold different vocabularies ({len(found)} and "
                f"{len(pieces)} tokens); remove the one that is not the model's"
            )
    elif lines.is_file() and settings.tokenizer_class not in LIBRARY_CLASSES:
        pieces, added, cleaning = tuple(read_lines(lines)), [], UNCASED
    else:
        missing = library if lines.is_file() else lines
        raise DataError(f"{missing} is missing; it defines the token ids")
    pieces = with_added(pieces, [*added, *settings.added_tokens()], path)
    return Vocabulary(pieces, settings.cleaning(cleaning))


def write_vocabulary(path: pathlib.Path, vocabulary: Vocabulary) -> None:
    """Writes the files that `read_vocabulary` reads: the WordPieces and the cleaning."""
    settings = {"tokenizer_class": "BertTokenizer"} | dataclasses.asdict(vocabulary.cleaning)
    path.with_name(SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    path.write_text("".join(f"{piece}\n" for piece in vocabulary.pieces), encoding="utf-8")


class _Settings:
    """The checked settings of `tokenizer_config.json`."""

    def __init__(self, path: pathlib.Path, values: dict[str, Any]):
        self.path, self._values = path, values
        self.tokenizer_class = self._value("tokenizer_class", (str,), BERT_CLASSES[0])
        if self.tokenizer_class not in (*BERT_CLASSES, *LIBRARY_CLASSES):
            raise DataError(
                f"{path}: tokenizer_class is {self.tokenizer_class!r}, but only BERT's WordPiece "
                "is supported"
            )
        for piece in SPECIAL_PIECES:
            key = f"{piece[1:-1].lower()}_token"
            found = self._value(key, (str, dict), piece)
            found = found["content"] if isinstance(found, dict) and "content" in found else found
            if found != piece:
                raise DataError(f"{path}: {key} is {found!r}, but only {piece!r} is supported")
        if not self._value("do_basic_tokenize", (bool,), True):
            raise DataError(f"{path}: do_basic_tokenize is false, but only true is supported")
        kept = self._value("never_split", (list,), [])
        if unusual := [word for word in kept if word not in SPECIAL_PIECES]:
            raise DataError(
                f"{path}: never_split holds {unusual[0]!r}, which is not supported: text is split "
                "at all punctuation"
            )

    def cleaning(self, default: Cleaning) -> Cleaning:
        """Returns the cleaning, with missing keys from `default`."""
        lower = self._value("do_lower_case", (bool,), default.do_lower_case)
        # Unless set, BERT strips accents if it lower-cases.
        is_missing = "do_lower_case" not in self._values
        accents = default.strip_accents if is_missing else lower
        chinese = default.tokenize_chinese_chars
        return Cleaning(
            lower,
            self._value("strip_accents", (bool,), accents),
            self._value("tokenize_chinese_chars", (bool,), chinese),
        )

    def added_tokens(self) -> list[AddedToken]:
        """Returns the tokens added to the WordPieces."""
        return added_tokens(self.path, self._value("added_tokens_decoder", (dict,), {}))

    def _value(self, key: str, types: tuple[type, ...], default: Any) -> Any:
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, types):
            wanted = " or ".join(kind.__name__ for kind in types)
            raise DataError(f"{self.path}: {key} is {value!r}, wanted {wanted}")
        return value


def _settings(directory: pathlib.Path) -> _Settings:
    path = directory / SETTINGS
    return _Settings(path, read_object(path) if path.is_file() else {})


def _read_library(path: pathlib.Path) -> tuple[tuple[str, ...], list, Cleaning]:
    """Reads WordPieces, added tokens and cleaning of a `tokenizer.json`."""
    values = read_object(path)
    try:
        model, normalizer = values["model"], values["normalizer"]
        found = (
            ("model.type", model.get("type", "WordPiece"), "WordPiece"),
            ("model.unk_token", model["unk_token"], SPECIAL_PIECES[1]),
            ("model.continuing_subword_prefix", model["continuing_subword_prefix"], CONTINUATION),
            ("model.max_input_chars_per_word", model["max_input_chars_per_word"], MAX_WORD_CHARS),
            ("normalizer.type", normalizer["type"], "BertNormalizer"),
            ("normalizer.clean_text", normalizer["clean_text"], True),
            ("pre_tokenizer.type", values["pre_tokenizer"]["type"], "BertPreTokenizer"),
        )
        for key, value, wanted in found:
            if value != wanted:
                raise DataError(f"{path}: {key} is {value!r}, but only {wanted!r} is supported")
        pieces = tuple(sorted(model["vocab"], key=model["vocab"].__getitem__))
        if [model["vocab"][piece] for piece in pieces] != list(range(len(pieces))):
            raise DataError(f"{path}: the ids of model.vocab must be 0, 1, 2, ... without gaps")
        lower, accents = normalizer["lowercase"], normalizer["strip_accents"]
        chinese = normalizer["handle_chinese_chars"]
        cleaning = Cleaning(lower, lower if accents is None else accents, chinese)
        return pieces, [added_token(t["id"], t) for t in values["added_tokens"]], cleaning
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a file of a WordPiece tokenizer (looking for {error})"
        ) from None


def added_tokens(path: pathlib.Path, tokens: dict[str, Any]) -> list[AddedToken]:
    """Returns the tokens of `added_tokens_decoder` in a `tokenizer_config.json`."""
    try:
        return [added_token(int(i), token) for i, token in tokens.items()]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{path}: added_tokens_decoder has an unexpected format") from None


def added_token(i: int, token: dict[str, Any]) -> AddedToken:
    """Parses one of `added_tokens` in a `tokenizer.json`."""
    return i, token["content"], token["special"]


def with_added(
    pieces: tuple[str, ...], added: list[AddedToken], path: pathlib.Path
) -> tuple[str, ...]:
    """Returns the tokens of a vocabulary, followed by special tokens added by other files."""
    result = list(pieces)
    for i, text, special in sorted(set(added)):
        if i == len(result) and text not in result:
            result.append(text)
        elif i >= len(result) or result[i] != text:
            raise DataError(
                f"{path} adds the token {text!r} with the id {i}, which is not the next free id"
            )
        if not special and text not in SPECIAL_PIECES:
            raise DataError(
                f"{path} adds the token {text!r}, which is matched before text is split into "
                "words, and that is not supported; remove it from the tokenizer's files if no "
                "text needs it"
            )
    return tuple(result)


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads the object in a JSON file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} holds {type(values).__name__}, expected a JSON object of settings")
    return values
