"""Rows of tokens with the tag of each word on its first token. Notation: B batch, L length."""

import numpy as np

from sibert_jax.data import Sequences, WordPiece
from sibert_jax.data.cache import digest
from sibert_jax.tasks.token_classification.task import NO_TAG


class TaggedRows:
    """Rows of tokens with the tag of each word on its first token; see `data.sequences.Rows`.

    Args:
      words: the words of each sentence.
      tags: the tag numbers of each sentence, one per word; None: all 0.
      tokenizer: the run's tokenizer.
      seq_len: maximum length of a row in tokens; longer sentences are split between words into
        several rows, and longer words are truncated.
    """

    def __init__(
        self,
        words: list[list[str]],
        tags: list[list[int]] | None,
        tokenizer: WordPiece,
        seq_len: int,
    ):
        distinct = list(dict.fromkeys(word for sentence in words for word in sentence))
        unknown = np.array([tokenizer.unk_id], np.int32)
        pieces = dict(zip(distinct, tokenizer.encode_batch(distinct)))
        tokens, labels, sentences = [], [], []
        for index, sentence in enumerate(words):
            row, marks = [], []
            own = [0] * len(sentence) if tags is None else tags[index]
            for word, tag in zip(sentence, own, strict=True):
                ids = pieces[word][: seq_len - 2] if len(pieces[word]) else unknown
                if len(row) + len(ids) > seq_len - 2:
                    _add(tokens, labels, row, marks, tokenizer)
                    sentences.append(index)
                    row, marks = [], []
                row += ids.tolist()
                marks += [tag] + [NO_TAG] * (len(ids) - 1)
            _add(tokens, labels, row, marks, tokenizer)
            sentences.append(index)
        lengths = [len(row) for row in tokens]
        self.sentences = np.array(sentences)
        self._tokens = Sequences.of(tokens, lengths, {}, tokenizer.pad_id)
        self._tags = Sequences.of(labels, lengths, {}, NO_TAG)
        self.lengths = self._tokens.lengths
        self.fingerprint = digest(self._tokens.fingerprint, self._tags.fingerprint)

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def num_cut(self) -> int:
        """The number of sentences split into several rows."""
        return int(np.sum(np.bincount(self.sentences) > 1))

    def rows(self, indices_B: np.ndarray, seq_len: int) -> dict[str, np.ndarray]:
        """Returns the given rows padded to `seq_len`, with "tags" (B,L) int32."""
        tags_BL = self._tags.rows(indices_B, seq_len)["tokens"]
        return self._tokens.rows(indices_B, seq_len) | {"tags": tags_BL}


def _add(tokens: list, labels: list, row: list, marks: list, tokenizer: WordPiece) -> None:
    tokens.append(np.array([tokenizer.cls_id, *row, tokenizer.sep_id], np.int32))
    labels.append(np.array([NO_TAG, *marks, NO_TAG], np.int32))
