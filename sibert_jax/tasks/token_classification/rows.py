"""Rows of tokens with the tag of each word on its first token. Letters: B batch, L length."""

import numpy as np

from sibert_jax.data import Sequences, WordPiece
from sibert_jax.data.cache import digest
from sibert_jax.tasks.token_classification.task import NO_TAG


class TaggedRows:
    """Rows of tokens with the tag of each word on its first token; see `data.sequences.Rows`.

    Args:
      words: of each sentence.
      tags: as numbers, of each sentence; None: 0 for each word.
      tokenizer: of the run.
      seq_len: most tokens of a row; a sentence of more is cut between words into several rows. Of a
        word of more, the first tokens are kept.
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
        """Sentences that have several rows."""
        return int(np.sum(np.bincount(self.sentences) > 1))

    def rows(self, indices_B: np.ndarray, seq_len: int) -> dict[str, np.ndarray]:
        """The given rows padded to `seq_len`, with "tags" (B,L) int32."""
        tags_BL = self._tags.rows(indices_B, seq_len)["tokens"]
        return self._tokens.rows(indices_B, seq_len) | {"tags": tags_BL}


def _add(tokens: list, labels: list, row: list, marks: list, tokenizer: WordPiece) -> None:
    tokens.append(np.array([tokenizer.cls_id, *row, tokenizer.sep_id], np.int32))
    labels.append(np.array([NO_TAG, *marks, NO_TAG], np.int32))
