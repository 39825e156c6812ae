"""Loads the tokenized corpora of a config through the cache."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sibert_jax.data.cache import FORMAT_VERSION, Cache, digest
from sibert_jax.data.config import SOURCES, CorpusConfig, split_paths
from sibert_jax.data.documents import HeldOutShare, Source, shortened
from sibert_jax.data.token_corpus import CorpusWriter, TokenCorpus, open_corpus, write_corpora
from sibert_jax.data.tokenizers.tokenizer import Tokenizer
from sibert_jax.data.vocabulary_training import find_tokenizer
from sibert_jax.errors import DataError

MAX_UNKNOWN = 0.02  # fraction of [UNK] tokens above which there is a warning
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Corpora:
    """The text of a pretraining run.

    Args:
      tokenizer: tokenizer of the given or learned vocabulary.
      train: one corpus per part of `CorpusConfig.path`.
      valid: the held-out documents.
      weights: as in the config.
      fingerprint: a hash of the tokens of all corpora, the vocabulary and the weights.
      unigram_counts: (V,) int64, count of each token in `train`.
    """

    tokenizer: Tokenizer
    train: list[TokenCorpus]
    valid: TokenCorpus
    weights: tuple[float, ...]
    fingerprint: str
    unigram_counts: np.ndarray


def load_corpora(c: CorpusConfig, *, vocab_size: int, progress: Progress) -> Corpora:
    """Tokenizes the text of a config, or memory-maps the tokens of an earlier call.

    Args:
      c: the text and its vocabulary.
      vocab_size: the model's vocabulary size.
      progress: called with progress messages and the sizes of the corpora.

    Raises:
      DataError: if text, vocabulary or cache are unusable.
    """
    c.check_path()
    cache = Cache(c.cache_dir, progress)
    train, valid = _sources(c, cache, progress)
    _check_disjoint(train, valid)
    share = HeldOutShare(train, 0.0 if valid else c.valid_fraction)
    identity = _identity(train, share, cache)
    tokenizer = find_tokenizer(c, vocab_size, identity["hashes"], train, share, cache, progress)
    tokens = _tokens(train, share, identity, tokenizer, cache, progress)
    held_out = tokens.held_out
    if valid:
        # A separate entry, so that training tokens stay valid when the evaluation text changes.
        nothing = HeldOutShare([valid], 0.0)
        identity = _identity([valid], nothing, cache)
        (held_out,) = _tokens([valid], nothing, identity, tokenizer, cache, progress).corpora
    if tokenizer.unk_id is not None:
        unknown = tokens.unigram_counts[tokenizer.unk_id] / max(1, tokens.unigram_counts.sum())
        if unknown > MAX_UNKNOWN:
            progress(f"{unknown:.0%} of the tokens are [UNK]: the vocabulary does not fit the text")
    return Corpora(
        tokenizer=tokenizer,
        train=tokens.corpora,
        valid=held_out,
        weights=c.weights,
        fingerprint=digest(
            [corpus.fingerprint for corpus in tokens.corpora],
            held_out.fingerprint,
            tokenizer.hash,
            [float(weight) for weight in c.weights],
        ),
        unigram_counts=tokens.unigram_counts,
    )


def _sources(
    c: CorpusConfig, cache: Cache, progress: Progress
) -> tuple[list[Source], Source | None]:
    """Returns the sources for training and evaluation; None: hold out training documents."""

    def source(kind: str, paths: tuple[str, ...], key: str) -> Source:
        return SOURCES[kind](c, paths, key, cache, progress)

    valid, valid_paths = None, split_paths(c.valid_path)
    if valid_paths:
        kind = "text" if c.source == "builtin" else c.source  # builtin text has no named files
        valid = source(kind, valid_paths, "data.valid_path")
    return [source(c.source, (path,), "data.path") for path in c.paths or ("",)], valid


def _check_disjoint(train: list[Source], valid: Source | None) -> None:
    shared = {part for source in train for part in source.parts}.intersection(
        valid.parts if valid else ()
    )
    if shared:
        raise DataError(
            f"data.valid_path names {min(shared)}, which data.path trains on; name other text, "
            "or leave it empty to hold out data.valid_fraction of the documents"
        )


def _identity(sources: list[Source], share: HeldOutShare, cache: Cache) -> dict:
    """Returns the files, for the manifest, and hashes that change whenever the corpora change."""
    files = [
        [
            {"path": str(f), "size": f.stat().st_size, "sha256": cache.source_sha256(f)}
            for f in source.files
        ]
        for source in sources
    ]
    contents = [
        [[file["sha256"] for file in of_source], source.options]
        for of_source, source in zip(files, sources)
    ]
    return {"files": files, "hashes": [contents, share.fraction]}


class _Tokens(NamedTuple):
    """One corpus per source, and one of the held-out documents, if any."""

    corpora: list[TokenCorpus]
    held_out: TokenCorpus | None
    unigram_counts: np.ndarray  # (V,) int64, of `corpora`


def _tokens(
    sources: list[Source],
    share: HeldOutShare,
    identity: dict,
    tokenizer: Tokenizer,
    cache: Cache,
    progress: Progress,
) -> _Tokens:
    """Tokenizes sources, or memory-maps their cached tokens, and reports their sizes."""

    def build(directory: pathlib.Path) -> dict:
        manifest = _write_tokens(directory, sources, share, tokenizer, progress)
        return manifest | {"tokenizer": tokenizer.hash, "sources": identity}

    key = digest("tokens", FORMAT_VERSION, identity["hashes"], tokenizer.hash)
    entry = cache.load_or_build(f"tokens-{key}", build)
    corpora = [
        open_corpus(entry.path, description, entry.manifest["files"])
        for description in entry.manifest["corpora"]
    ]
    held_out = corpora.pop() if share.fraction else None
    for note in entry.manifest["notes"]:
        progress(note)
    names = shortened([source.name for source in sources], "parts")
    parts = "parts of documents" if entry.manifest["splits_documents"] else "documents"
    progress(f"{sources[0].key}: {_size(corpora, parts)} in {names}")
    if held_out:
        size = _size([held_out], parts)
        progress(f"data.valid_fraction={share.fraction:g}: {size} held out of it")
    return _Tokens(corpora, held_out, np.fromfile(entry.path / "unigram_counts", np.int64))


def _size(corpora: list[TokenCorpus], parts: str) -> str:
    num_parts = sum(corpus.num_documents for corpus in corpora)
    return f"{num_parts:,} {parts}, {sum(corpus.num_tokens for corpus in corpora):,} tokens"


def _write_tokens(
    directory: pathlib.Path,
    sources: list[Source],
    share: HeldOutShare,
    tokenizer: Tokenizer,
    progress: Progress,
) -> dict:
    """Writes the arrays of all corpora, the held-out one last, and describes them."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    corpora = []
    with CorpusWriter(directory, "held_out", tokenizer.vocab_size) as held_out_writer:
        for i, source in enumerate(sources):
            with CorpusWriter(directory, f"train{i}", tokenizer.vocab_size) as writer:
                writers = (writer, held_out_writer)
                write_corpora(share.split(source), writers, tokenizer, source.name, progress)
            if not writer.num_documents:
                raise DataError(f"{source.key}: {_nothing_left(source, share)}")
            counts += writer.unigram_counts
            corpora.append(writer.description())
        if share.fraction:
            corpora.append(held_out_writer.description())
    counts.tofile(directory / "unigram_counts")
    return {
        "corpora": corpora,
        "splits_documents": share.splits_documents,
        "notes": [f"{source.key}: {note}" for source in sources if (note := source.note())],
    }


def _nothing_left(source: Source, share: HeldOutShare) -> str:
    if not share.fraction:
        return f"{source.name} holds no words; name other text"
    return (
        f"no document of {source.name} is left to train on once "
        f"data.valid_fraction={share.fraction:g} is held out; give more text, lower the fraction, "
        "or name held-out text in data.valid_path"
    )
