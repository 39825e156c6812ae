"""Masked-language modelling with optional next-sentence prediction, as BERT is pretrained."""

from sibert_jax.tasks.pretraining.task import Pretraining, PretrainingConfig, load_pretraining

__all__ = ["Pretraining", "PretrainingConfig", "load_pretraining"]
