"""The registry of tasks: each task is a folder, and a line here."""

import importlib

from sibert_jax.errors import ConfigError
from sibert_jax.tasks.task import TaskType

# Value of `task.name` -> module with a `TASK: TaskType`, imported on demand.
MODULES = {
    "pretraining": "sibert_jax.tasks.pretraining.load",
    "causal_lm": "sibert_jax.tasks.causal_lm.load",
    "classification": "sibert_jax.tasks.classification.load",
    "question_answering": "sibert_jax.tasks.question_answering.load",
    "token_classification": "sibert_jax.tasks.token_classification.load",
}


def task_type(name: str) -> TaskType:
    """Returns the task type named by `task.name`; raises ConfigError if it is unknown."""
    if name not in MODULES:
        raise ConfigError(f"task.name={name!r} is unknown; choose one of {list(MODULES)}.")
    return importlib.import_module(MODULES[name]).TASK
