"""Learns a vocabulary from the training text, deterministically.

The WordPiece trainer of Hugging Face `tokenizers` breaks ties by hash table order, so two runs over
the same text differ in a few WordPieces. Here ties go to pairs that begin a word, then to the first
in alphabetical order.
"""

import collections
import heapq
import itertools
import pathlib
from collections.abc import Callable, Iterator

from sibert_jax.data.cache import FORMAT_VERSION, Cache, digest
from sibert_jax.data.config import CorpusConfig
from sibert_jax.data.documents import HeldOutShare, Source, shortened
from sibert_jax.data.tokenizers.byte_bpe import ByteBPE
from sibert_jax.data.tokenizers.tokenizer import Tokenizer, vocabulary_file
from sibert_jax.data.tokenizers.vocabulary import (
    CONTINUATION,
    MAX_WORD_CHARS,
    MIN_PAIR_COUNT,
    SPECIAL_PIECES,
)
from sibert_jax.data.tokenizers.word_piece import WordPiece, bert_normalizer, bert_pre_tokenizer
from sibert_jax.errors import DataError, named_by

MAX_ALPHABET = 1000
MIN_CHAR_SHARE = 1e-6  # of all characters; words with rarer ones become [UNK]


def find_tokenizer(
    c: CorpusConfig,
    vocab_size: int,
    hashes: list,
    train: list[Source],
    share: HeldOutShare,
    cache: Cache,
    progress: Callable[[str], None],
) -> Tokenizer:
    """Returns the tokenizer of `c.vocab`, or of a vocabulary that is learned and cached.

    Args:
      c: the corpus config, which may name a vocabulary.
      vocab_size: the model's vocabulary size.
      hashes: JSON values that change whenever the training text changes.
      train: the training text.
      share: the held-out part, which is not used for the vocabulary.
      cache: where a learned vocabulary is stored.
      progress: called with progress messages.

    Raises:
      DataError: if the vocabulary or the text is unusable.
    """
    if c.vocab:
        with named_by("data.vocab"):
            tokenizer = Tokenizer.load(c.vocab)
        if tokenizer.vocab_size != vocab_size:
            raise DataError(
                f"data.vocab: the vocabulary {c.vocab} has {tokenizer.vocab_size} tokens but "
                f"model.vocab_size={vocab_size}; set model.vocab_size={tokenizer.vocab_size} or "
                "name another data.vocab"
            )
        if tokenizer.kind != c.tokenizer:
            raise DataError(
                f"data.vocab: the vocabulary {c.vocab} is one for data.tokenizer="
                f"{tokenizer.kind!r}, and the config has {c.tokenizer!r}; set the former, or name "
                "another data.vocab"
            )
        return tokenizer
    learn, what = LEARNERS[c.tokenizer]

    def build(directory: pathlib.Path) -> dict:
        paragraphs = _sampled_paragraphs(c.vocab_train_bytes, train, share, progress)
        tokenizer = learn(paragraphs, vocab_size, progress)
        tokenizer.save(directory / tokenizer.file_name)
        return {"vocab_size": vocab_size}

    key = digest(what, FORMAT_VERSION, hashes, vocab_size, c.vocab_train_bytes)
    return Tokenizer.load(vocabulary_file(cache.load_or_build(f"vocab-{key}", build).path))


def _learn_wordpieces(paragraphs, vocab_size, progress) -> WordPiece:
    counts: collections.Counter = collections.Counter()
    for paragraph in paragraphs:
        counts.update(paragraph.split(" "))
    progress(f"learning {vocab_size:,} WordPieces from {counts.total():,} words")
    return WordPiece(train_wordpieces(counts, vocab_size))


def _learn_merges(paragraphs, vocab_size, progress) -> ByteBPE:
    texts = [f"{paragraph}\n" for paragraph in paragraphs]
    progress(f"learning {vocab_size:,} tokens of byte-level BPE from {len(texts):,} paragraphs")
    return ByteBPE.learned(texts, vocab_size)


# Value of `data.tokenizer` -> the learning function, and the first part of its cache key.
LEARNERS = {
    WordPiece.kind: (_learn_wordpieces, "vocab"),
    ByteBPE.kind: (_learn_merges, "byte_bpe"),
}


def _sampled_paragraphs(
    max_bytes: int, train: list[Source], share: HeldOutShare, progress: Callable[[str], None]
) -> Iterator[str]:
    """Yields about `max_bytes` bytes of paragraphs, sampled evenly."""
    progress("reading " + shortened([source.name for source in train], "parts"))
    sizes = [
        sum(_num_bytes(paragraph) for paragraph in _training_paragraphs(source, share))
        for source in train
    ]
    taken_share = min(1.0, max_bytes / max(1, sum(sizes)))
    for source in train:
        seen = taken = 0
        for paragraph in _training_paragraphs(source, share):
            seen += _num_bytes(paragraph)
            if taken < taken_share * seen:
                taken += _num_bytes(paragraph)
                yield paragraph


def _training_paragraphs(source: Source, share: HeldOutShare) -> Iterator[str]:
    for held_out, document in share.split(source):
        if not held_out:
            yield from document


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def train_wordpieces(word_counts: collections.Counter, vocab_size: int) -> tuple[str, ...]:
    """Learns WordPieces by merging the most frequent adjacent pair until there are enough.

    Args:
      word_counts: the count of each space-separated word.
      vocab_size: the number of WordPieces, special tokens included; if the text is too small for
        that many, the rest is "[unused0]", "[unused1]", ... as in BERT's own vocabulary.

    Returns:
      The special tokens, the alphabet, then the merged WordPieces in the order they were learned.

    Raises:
      DataError: if `vocab_size` is too small for an alphabet.

    Example:
      >>> train_wordpieces(collections.Counter({"abab": 9, "ab": 5}), 13)[5:]
      ('a', '##a', 'b', '##b', 'ab', 'aba', 'abab', '[unused0]')

    References:
      Sennrich et al., https://arxiv.org/abs/1508.07909, Algorithm 1.
    """
    room = vocab_size - len(SPECIAL_PIECES)
    if room < 4:
        raise DataError(f"a trained vocabulary needs vocab_size of at least 9, not {vocab_size}")
    token_counts = _token_counts(word_counts)
    words = [[token[0], *(CONTINUATION + char for char in token[1:])] for token in token_counts]
    counts = list(token_counts.values())
    alphabet = _alphabet(words, counts, room)
    spellable = [i for i, symbols in enumerate(words) if alphabet.keys() >= set(symbols)]
    pieces = dict.fromkeys(alphabet)
    _merge([words[i] for i in spellable], [counts[i] for i in spellable], pieces, room)
    unused = [f"[unused{i}]" for i in range(room - len(pieces))]
    return (*SPECIAL_PIECES, *pieces, *unused)


def _token_counts(word_counts: collections.Counter) -> collections.Counter:
    """Counts the words after cleaning and splitting at punctuation, as the tokenizer does."""
    normalizer, pre_tokenizer = bert_normalizer(), bert_pre_tokenizer()
    token_counts: collections.Counter = collections.Counter()
    for word, count in word_counts.items():
        for token, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(word)):
            if len(token) <= MAX_WORD_CHARS:
                token_counts[token] += count
    return token_counts


def _alphabet(words: list[list[str]], counts: list[int], room: int) -> dict[str, None]:
    """Returns the one-character WordPieces, most frequent first.

    Every character may begin a word; only those seen inside words get a continuation form.
    """
    char_counts: collections.Counter = collections.Counter()
    inside = set()
    for symbols, count in zip(words, counts):
        inside.update(symbols[1:])
        for symbol in symbols:
            char_counts[symbol.removeprefix(CONTINUATION)] += count
    least = MIN_CHAR_SHARE * char_counts.total()
    alphabet: dict[str, None] = {}
    for char in sorted(char_counts, key=lambda char: (-char_counts[char], char)):
        forms = [form for form in (char, CONTINUATION + char) if form == char or form in inside]
        if char_counts[char] < least or len(alphabet) + len(forms) > min(MAX_ALPHABET, room // 2):
            break
        alphabet.update(dict.fromkeys(forms))
    return alphabet


def _merge(words: list[list[str]], counts: list[int], pieces: dict, room: int) -> None:
    """Adds merged WordPieces to `pieces` until it has `room` entries; modifies `words`."""
    pair_counts: collections.Counter = collections.Counter()
    words_with: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
    for i, symbols in enumerate(words):
        for pair in itertools.pairwise(symbols):
            pair_counts[pair] += counts[i]
            words_with[pair].add(i)
    heap = [_entry(count, pair) for pair, count in pair_counts.items() if count >= MIN_PAIR_COUNT]
    heapq.heapify(heap)
    while heap and len(pieces) < room:
        negative_count, _, pair = heapq.heappop(heap)
        if pair_counts[pair] != -negative_count:
            continue  # a later entry holds the current count
        merged = pair[0] + pair[1].removeprefix(CONTINUATION)
        pieces.setdefault(merged)
        changed = set()
        for i in words_with.pop(pair):
            before = words[i]
            after = words[i] = _merged(before, pair, merged)
            for old in itertools.pairwise(before):
                pair_counts[old] -= counts[i]
                changed.add(old)
            for new in itertools.pairwise(after):
                pair_counts[new] += counts[i]
                words_with[new].add(i)
                changed.add(new)
        for other in changed:
            if pair_counts[other] >= MIN_PAIR_COUNT:
                heapq.heappush(heap, _entry(pair_counts[other], other))


def _entry(count: int, pair: tuple[str, str]) -> tuple[int, bool, tuple[str, str]]:
    """Returns the sort key of a pair: frequent first, then word-initial, then alphabetical."""
    return -count, pair[0].startswith(CONTINUATION), pair


def _merged(symbols: list[str], pair: tuple[str, str], merged: str) -> list[str]:
    after = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            after.append(merged)
            i += 2
        else:
            after.append(symbols[i])
            i += 1
    return after
