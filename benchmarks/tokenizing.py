"""Text into WordPieces on one core: ours, which remembers words, and the library that it calls."""

import itertools
import os
import time
from collections.abc import Callable
from unittest import mock

from benchmarks import measuring, train_step
from sibert_jax.data import WordPiece, load_corpora
from sibert_jax.data.cache import Cache
from sibert_jax.data.python_docs import builtin_source
from sibert_jax.data.tokenizers.word_piece import word_piece_model
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve

LIBRARY, OURS = "tokenizers (Hugging Face)", "sibert_jax.data.WordPiece"
MAX_PARAGRAPHS = 20_000


def measure(*, repeats: int = 5) -> measuring.Result:
    """MB/s on the builtin text."""
    run = run_config(resolve(train_step.model_config("sibert")))
    tokenizer = load_corpora(
        run.data, vocab_size=run.model.vocab_size, progress=measuring.say
    ).tokenizer
    documents = builtin_source(Cache(run.data.cache_dir, measuring.say), measuring.say).documents()
    paragraphs = itertools.chain.from_iterable(documents)
    texts = list(itertools.islice(paragraphs, MAX_PARAGRAPHS))
    return measure_texts(tokenizer, texts, repeats)


def measure_texts(tokenizer: WordPiece, texts: list[str], repeats: int) -> measuring.Result:
    """MB/s of both, each of them without what it has learnt in an earlier repeat.

    Args:
      tokenizer: whose pieces to use.
      texts: paragraphs.
      repeats: of each.
    """
    size = sum(len(text.encode()) for text in texts)

    def library() -> Callable[[], object]:
        ids = {piece: i for i, piece in enumerate(tokenizer.pieces)}
        model = word_piece_model(ids)
        return lambda: model.encode_batch_fast(texts, add_special_tokens=False)

    def ours() -> Callable[[], object]:
        fresh = WordPiece(tokenizer.pieces)
        return lambda: fresh.encode_flat(texts)

    def timer(make: Callable[[], Callable[[], object]]) -> Callable[[], float]:
        def timed() -> float:
            encode = make()
            since = time.perf_counter()
            encode()
            return size / 1e6 / (time.perf_counter() - since)

        return timed

    with mock.patch.dict(os.environ, {"TOKENIZERS_PARALLELISM": "false"}):
        values = measuring.in_turn({LIBRARY: timer(library), OURS: timer(ours)}, repeats)
    return measuring.Result(
        title=f"Tokenising {size / 1e6:.1f} MB of English on one core",
        unit="MB/s",
        more_is_better=True,
        baseline="the library",
        rows=measuring.rows(values, LIBRARY),
        notes=["The library by itself returns offsets and masks too, which ours leaves out."],
    )
