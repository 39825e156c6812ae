"""Entities in sequences of tags and their scores, counted as by default in `seqeval`.

A tag is "O", or a prefix and a type such as "B-PER". IOB1, IOB2, IOE and IOBES are all supported:
an entity starts where its prefix or a change of type indicates it. Nakayama 2018, seqeval; Tjong
Kim Sang and De Meulder 2003, conlleval.
"""

import collections
from collections.abc import Sequence

Entity = tuple[str, int, int]  # type, index of first and last word


def entities(tags: Sequence[str]) -> set[Entity]:
    """Returns the entities of one sentence.

    Example:
      >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
      [('LOC', 3, 3), ('LOC', 4, 4), ('PER', 0, 1)]
    """
    found, first, before, kind = set(), 0, "O", ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, own = tag[0], tag[1:].split("-", 1)[-1] or "_"
        other = own != kind
        if before in "ES" or (before in "BI" and prefix in "BSO") or (before not in "O." and other):
            found.add((kind, first, i - 1))
        if prefix in "BS" or (before in "ESO" and prefix in "EI") or (prefix not in "O." and other):
            first = i
        before, kind = prefix, own
    return found


def entity_scores(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns precision, recall and F1 over the entities of all sentences, and per type.

    An entity is correct if its type and its words are. Undefined values are 0.

    Returns:
      {"f1", "precision", "recall"}; and the same per type, with "examples", its number of entities.
    """
    hits, given, true = (collections.Counter() for _ in range(3))
    for answer, wanted in zip(predicted, gold, strict=True):
        found, there = entities(answer), entities(wanted)
        hits.update(kind for kind, *_ in found & there)
        given.update(kind for kind, *_ in found)
        true.update(kind for kind, *_ in there)
    by_type = {
        kind: _scores(hits[kind], given[kind], true[kind]) | {"examples": true[kind]}
        for kind in sorted(given | true)
    }
    return _scores(hits.total(), given.total(), true.total()), by_type


def _scores(hits: int, given: int, true: int) -> dict[str, float]:
    return {
        "f1": 2 * hits / max(given + true, 1),
        "precision": hits / max(given, 1),
        "recall": hits / max(true, 1),
    }
