"""Shared by the tasks that train on unlabeled text: from corpora to the data of a run."""

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
    """Shuffled batches to train on; to evaluate on, batches that are the same for every seed.

    Args:
      corpora: the text; several are mixed by their weights.
      examples: those of a corpus, from it and a seed.
      batches: those of examples, from these, a seed and whether to shuffle.
      seed: of the run.
      main_metric: a loss.
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
