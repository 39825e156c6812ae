"""Sentences and pairs of sentences to labels or a score: the tasks of GLUE."""

from sibert_jax.tasks.classification.load import load_classification, load_new_sentences
from sibert_jax.tasks.classification.task import Classification, ClassificationConfig

__all__ = ["Classification", "ClassificationConfig", "load_classification", "load_new_sentences"]
