"""The registry of tasks: each is a folder with head, loss, examples and keys, and a line here."""

import importlib

from sibert_jax.errors import ConfigError
from sibert_jax.tasks.task import TaskType

# Value of `task.name` -> module with a `TASK: TaskType`, imported when it is asked for.
MODULES = {
    "pretraining": "sibert_jax.tasks.pretraining.load",
    "causal_lm": "sibert_jax.tasks.causal_lm.load",
    "classification": "sibert_jax.tasks.classification.load",
    "question_answering": "sibert_jax.tasks.question_answering.load",
    "token_classification": "sibert_jax.tasks.token_classification.load",
}


def task_type(name: str) -> TaskType:
    """The kind of task that `task.name` says; raises ConfigError if there is none."""
    if name not in MODULES:
        raise ConfigError(f"task.name={name!r} is unknown; choose one of {list(MODULES)}.")
    return importlib.import_module(MODULES[name]).TASK
