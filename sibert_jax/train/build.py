"""From config keys to objects; no other file reads the config."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections
import optax

from sibert_jax import optim
from sibert_jax.data import CorpusSpec, FinetuningSpec, Tokenizer
from sibert_jax.errors import ConfigError
from sibert_jax.model import ModelConfig
from sibert_jax.tasks.classification import (
    Classification,
    ClassificationConfig,
    load_classification,
    load_new_sentences,
)
from sibert_jax.tasks.pretraining import Pretraining, PretrainingConfig, load_pretraining
from sibert_jax.tasks.question_answering.load import (
    QuestionAnsweringSpec,
    load_new_questions,
    load_question_answering,
)
from sibert_jax.tasks.question_answering.task import QuestionAnswering, QuestionAnsweringConfig
from sibert_jax.tasks.task import NewText, Task, TaskData
from sibert_jax.train.resolve import is_open, resolve
from sibert_jax.train.run_config import (
    CheckpointConfig,
    DistributedConfig,
    HeadOptimConfig,
    MeshConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)

# The dataclasses of the keys under `task` and under `data`.
TASKS = {
    "pretraining": (PretrainingConfig, CorpusSpec),
    "classification": (ClassificationConfig, FinetuningSpec),
    "question_answering": (QuestionAnsweringConfig, QuestionAnsweringSpec),
}


def run_config(config: ml_collections.ConfigDict) -> RunConfig:
    """Checks every key and every combination of keys; raises ConfigError with one sentence.

    Args:
      config: as `resolve` returns it, or with keys still open.
    """
    _check_keys("config", config, RunConfig, extra=(), missing=("seq_len",))
    if is_open(config):
        config = resolve(config)
    if config.task.name not in TASKS:
        raise ConfigError(
            f"task.name={config.task.name!r} is unknown; choose one of {list(TASKS)}."
        )
    task_class, data_class = TASKS[config.task.name]
    data = config.data.to_dict()
    seq_len = data.pop("seq_len")
    # Pretraining counts steps, fine-tuning epochs; each config has the keys of its own kind only.
    if is_pretraining := config.task.name == "pretraining":
        data |= {
            "vocab_size": config.model.vocab_size,
            "weights": tuple(float(weight) for weight in data["weights"]),
        }
    timed = {"warmup_fraction": 0.0} if is_pretraining else {"warmup_steps": 0}
    length = {"num_epochs": 0.0} if is_pretraining else {"num_steps": 0}
    head = _dataclass("optim.head", HeadOptimConfig, config.optim.head.to_dict(), timed)
    run = RunConfig(
        seed=config.seed,
        init_scale=config.init_scale,
        task=_dataclass("task", task_class, config.task.to_dict()),
        model=_dataclass("model", ModelConfig, config.model.to_dict()),
        data=_dataclass("data", data_class, data),
        seq_len=seq_len,
        optim=_dataclass("optim", OptimConfig, config.optim.to_dict() | {"head": head}, timed),
        train=_dataclass("train", TrainConfig, config.train.to_dict(), length),
        mesh=_dataclass("mesh", MeshConfig, config.mesh.to_dict()),
        distributed=_dataclass("distributed", DistributedConfig, config.distributed.to_dict()),
        checkpoint=_dataclass("checkpoint", CheckpointConfig, config.checkpoint.to_dict()),
    )
    if is_pretraining:
        check_schedules(run)
    return run


def distributed_config(config: ml_collections.ConfigDict) -> DistributedConfig:
    """The keys that say how processes find each other, checked before the others can be."""
    _check_keys("config", config, RunConfig, extra=(), missing=("seq_len",))
    return _dataclass("distributed", DistributedConfig, config.distributed.to_dict())


def check_schedules(run: RunConfig) -> None:
    """Refuses schedules that do not fit `train.num_steps`, once that is known."""
    num_steps = run.train.num_steps
    for section, values in (("optim", run.optim), ("optim.head", run.optim.head)):
        try:
            make_schedule(values, 1.0, num_steps)
        except ValueError as error:
            raise ConfigError(
                f"{section}.schedule={values.schedule!r}, {section}.warmup_steps="
                f"{values.warmup_steps} and train.num_steps={num_steps} do not fit: {error}"
            ) from None


def _check_keys(section: str, values, cls, *, extra: tuple = (), missing: tuple = ()):
    wanted = ({field.name for field in dataclasses.fields(cls)} - set(missing)) | set(extra)
    if unknown := sorted(set(values) - wanted):
        raise ConfigError(f"{section}.{unknown[0]} is not a key; there are {sorted(wanted)}.")
    if absent := sorted(wanted - set(values)):
        raise ConfigError(f"{section}.{absent[0]} is missing; start from default_config().")


def _dataclass(section: str, cls, values: dict, set_here: dict | None = None):
    """The dataclass of a section; `set_here` holds the fields that are no keys of the config."""
    set_here = set_here or {}
    _check_keys(section, values, cls, missing=tuple(set_here))
    try:
        return cls(**values, **set_here)
    except ConfigError:
        raise
    except ValueError as error:  # the packages below `train` have no ConfigError
        raise ConfigError(str(error)) from None


def load_task(run: RunConfig, progress: Callable[[str], None]) -> tuple[Task, TaskData]:
    """The task of a run with its data.

    Args:
      run: the whole configuration.
      progress: called with a line of text now and then.

    Raises:
      DataError: text, vocabulary or cache cannot be used.
    """
    arguments = {
        "seq_len": run.seq_len,
        "global_batch_size": run.train.global_batch_size,
        "seed": run.seed,
        "progress": progress,
    }
    match run.task:
        case PretrainingConfig():
            return load_pretraining(run.model, run.task, run.data, **arguments)
        case ClassificationConfig():
            tokenizer = finetuning_tokenizer(run)
            return load_classification(run.model, run.task, run.data, tokenizer, **arguments)
        case QuestionAnsweringConfig():
            tokenizer = finetuning_tokenizer(run)
            return load_question_answering(run.model, run.task, run.data, tokenizer, **arguments)


def load_new_text(
    run: RunConfig, path: str, tokenizer: Tokenizer, progress: Callable[[str], None]
) -> tuple[Task, NewText]:
    """The task of a run with text to predict, whatever it was trained on.

    Args:
      run: the whole configuration.
      path: the text.
      tokenizer: of the run.
      progress: called with a line of text where something was left out or replaced.

    Raises:
      ConfigError: the run's task answers nothing.
      DataError: the text cannot be used.
    """
    arguments = {
        "seq_len": run.seq_len,
        "global_batch_size": run.train.global_batch_size,
        "progress": progress,
    }
    match run.task:
        case ClassificationConfig():
            return load_new_sentences(run.model, run.task, path, tokenizer, **arguments)
        case QuestionAnsweringConfig():
            return load_new_questions(run.model, run.task, path, tokenizer, **arguments)
        case _:
            raise ConfigError(
                f"--predict is for fine-tuned runs, and this one has task.name={run.task.name!r}."
            )


def finetuning_tokenizer(run: RunConfig) -> Tokenizer:
    """The vocabulary of a fine-tuning run."""
    if not run.data.vocab:
        raise ConfigError(
            "data.vocab and checkpoint.init_from are both empty, so there is no vocabulary; name a "
            "vocabulary file, or a workdir to start from."
        )
    tokenizer = Tokenizer.load(run.data.vocab)
    if tokenizer.vocab_size != run.model.vocab_size:
        raise ConfigError(
            f"the vocabulary {run.data.vocab} has {tokenizer.vocab_size} pieces but "
            f"model.vocab_size={run.model.vocab_size}; leave the latter out, or set them alike."
        )
    return tokenizer


def bare_task(run: RunConfig) -> Task:
    """The task without data: enough for shapes, degrees and compilation, not for training."""
    match run.task:
        case PretrainingConfig():
            return Pretraining(run.model, run.task, run.seq_len)
        case ClassificationConfig():
            return Classification(run.model, run.task, (run.seq_len,))
        case QuestionAnsweringConfig():
            return QuestionAnswering(run.model, run.task, (run.seq_len,))


def analysable_task(task: Task, run: RunConfig) -> Task:
    """`task`, or if its attention is a kernel, the bare task with the same attention as einsums.

    The analysis of degrees cannot look into a kernel.
    """
    if run.model.attention_impl != "pallas":
        return task
    model = dataclasses.replace(run.model, attention_impl="einsum")
    return bare_task(dataclasses.replace(run, model=model))


class Recipe(NamedTuple):
    """An optimizer and what its equilibrium depends on."""

    tx: optax.GradientTransformation
    learning_rate: optax.Schedule  # η_t of the encoder
    weight_decay: float  # λ of the encoder
    clip_factor: float | None  # C; None: no clip, or not the recipe
    predicts_equilibrium: bool  # whether the theory of SGD + weight decay applies
    one_clip: bool  # whether the update of all scale-invariant leaves is −η·(m·g + λ·x), m shared


def build_recipe(run: RunConfig, learning_rate: float, weight_decay: float, mask) -> Recipe:
    """The optimizer of a run.

    Args:
      run: the whole configuration.
      learning_rate: peak η, dimensionless: from the config or from `eta_lambda`.
      weight_decay: λ, likewise.
      mask: True on scale-invariant leaves; a tree like the parameters.
    """
    c, num_steps = run.optim, run.train.num_steps
    schedule = make_schedule(c, learning_rate, num_steps)
    if c.name in ("adamw", "lamb"):
        make = optax.adamw if c.name == "adamw" else optax.lamb
        adaptive = make(schedule, c.b1, c.b2, c.eps, weight_decay=weight_decay, mask=_decayed)
        tx = optax.chain(optax.clip_by_global_norm(c.max_grad_norm), adaptive)
        return Recipe(tx, schedule, weight_decay, None, predicts_equilibrium=False, one_clip=False)
    clip_factor = None if math.isinf(c.clip_factor) else c.clip_factor
    if c.head.name == "recipe":
        tx = optim.scale_invariant_sgd(schedule, weight_decay, clip_factor, blocks=_blocks)
    else:
        encoder_tx = optim.scale_invariant_sgd(schedule, weight_decay, clip_factor)
        tx = optim.partition_by_invariance(encoder_tx, _head_tx(c.head, num_steps), mask)
    one_clip = c.head.name != "recipe"
    return Recipe(
        tx, schedule, weight_decay, clip_factor, predicts_equilibrium=True, one_clip=one_clip
    )


def _head_tx(c: HeadOptimConfig, num_steps: int) -> optax.GradientTransformation:
    schedule = make_schedule(c, c.learning_rate, num_steps)
    if c.name == "sgd":
        return optax.chain(optax.add_decayed_weights(c.weight_decay, _decayed), optax.sgd(schedule))
    make = optax.lamb if c.name == "lamb" else optax.adamw
    return make(schedule, c.b1, c.b2, c.eps, weight_decay=c.weight_decay, mask=_decayed)


def make_schedule(
    c: OptimConfig | HeadOptimConfig, peak_value: float, num_steps: int
) -> optax.Schedule:
    """η_t of the encoder or of the head, by the keys of its section."""
    return optim.make_schedule(
        c.schedule, peak_value=peak_value, num_steps=num_steps, warmup_steps=c.warmup_steps
    )


def _decayed(params):
    """Weight decay on matrices and tables, not on biases and gains (Devlin et al. 2019)."""

    def is_matrix(path, _):
        return not path[-1].key.endswith(("bias", "scale"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def _blocks(params):
    """Clip blocks of a fully scale-invariant model: each row of an output table is its own."""
    rows = ("output", "nsp")
    head = {name: optim.ROWS if name in rows else name for name in params["head"]}
    return {"encoder": "encoder", "head": head}
