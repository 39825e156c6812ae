"""Builds the data of a run from corpora, for the tasks that train on unlabeled text."""

from collections.abc import Callable

from sibert_jax.data import Corpora, Examples, TokenCorpus, WeightedExamples
from sibert_jax.errors import named_by
from sibert_jax.tasks.task import Batches, TaskData


def corpus_data(
    corpora: Corpora,
    examples: Callable[[TokenCorpus, int], Examples],
    batches: Callable[[Examples, int, bool], Batches],
    *,
    seed: int,
    main_metric: str,
) -> TaskData:
    """Returns shuffled training batches, and evaluation batches that do not depend on the seed.

    Args:
      corpora: the text; several corpora are mixed by their weights.
      examples: maps a corpus and a seed to examples.
      batches: maps examples, a seed and whether to shuffle to batches.
      seed: the run's seed.
      main_metric: name of the main metric, a loss.
    """
    with named_by("data.path"):
        sets = [examples(corpus, seed) for corpus in corpora.train]
        mixed = sets[0] if len(sets) == 1 else WeightedExamples(sets, corpora.weights, seed)
        train = batches(mixed, seed, True)
    with named_by("held-out text (data.valid_path, data.valid_fraction)"):
        valid = batches(examples(corpora.valid, 0), 0, False)
    return TaskData(
        train=train,
        valid=valid,
        fingerprint=corpora.fingerprint,
        steps_per_epoch=train.steps_per_epoch,
        tokenizer=corpora.tokenizer,
        held_out=(),
        main_metric=main_metric,
        lower_is_better=True,
    )
