"""Loads a trained model from a run, an export, or a Hugging Face BERT or GPT-2."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.checkpoint import checkpoints_in, chosen, restore_all_params, steps_in
from sibert_jax.data import Tokenizer, vocabulary_file
from sibert_jax.errors import ConfigError
from sibert_jax.files import user_path
from sibert_jax.inference.loaded_model import LoadedModel
from sibert_jax.interop import exported, foreign
from sibert_jax.interop.config_json import read_json
from sibert_jax.interop.find_head import head_of
from sibert_jax.keys import from_dict
from sibert_jax.model import ModelConfig, reparametrize
from sibert_jax.tasks.causal_lm.task import CausalLMConfig, TiedHead
from sibert_jax.tasks.classification.answers import answers
from sibert_jax.tasks.classification.config import ClassificationConfig
from sibert_jax.tasks.classification.task import ClassificationHead
from sibert_jax.tasks.pretraining.heads import StandardHead
from sibert_jax.tasks.question_answering.task import QuestionAnsweringConfig, SpanHead
from sibert_jax.tasks.task import EncoderWithHead
from sibert_jax.tasks.token_classification.task import TokenHead
from sibert_jax.train.resolve import read_settings


def load(directory: str | pathlib.Path, step: int | str | None = None) -> LoadedModel:
    """Loads a trained model onto the first device.

    Args:
      directory: a run's workdir, a directory written by `python -m sibert_jax.interop export` or
        `python -m sibert_jax.quantize`, or a Hugging Face BERT or GPT-2.
      step: the checkpoint of a workdir: None for the newest one, "best" for that of the best
        evaluation, or its number of updates.

    Raises:
      ConfigError, CheckpointError, InteropError, DataError: one sentence each.

    Example::

        model = sibert_jax.load("runs/mini")
        vectors_ND = model.encode(["a text", "another text"])
    """
    directory = user_path(directory)
    if steps_in(checkpoints_in(directory)):
        return _of_workdir(directory, step)
    if step is not None:
        raise ConfigError(f"{directory} holds no checkpoints, so there is none of step {step}.")
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"{directory} holds no model: name the workdir of a run with a checkpoint, a directory "
            "that `python -m sibert_jax.interop export` wrote, or one of Hugging Face's BERT."
        )
    config = read_json(directory / "config.json")
    if "format" in config:
        return _of_export(directory)
    if "model_type" in config or "architectures" in config:
        return _of_hugging_face(directory)
    raise ConfigError(f"{directory} has no checkpoint yet; train until the first one is saved.")


class NoHead(nn.Module):
    """A head that returns the encoder's features unchanged."""

    @nn.compact
    def __call__(self, x_BLD: jax.Array, batch, token_table_VD: jax.Array, *, deterministic: bool):
        """Returns x_BLD."""
        del batch, token_table_VD, deterministic
        return x_BLD


def _of_workdir(directory: pathlib.Path, step: int | str | None) -> LoadedModel:
    source = chosen(directory, step)
    params = restore_all_params(source)
    home = checkpoints_in(directory).parent
    tokenizer = Tokenizer.load(vocabulary_file(home))
    described = source.manifest.run
    if "data_fingerprint" not in described:  # imported weights
        cfg = ModelConfig(**described["config"]["model"])
        return _of_parts(home, cfg, params, tuple(described["labels"]), tokenizer)
    # Only the keys that the model depends on; the others may be from another version.
    settings = read_settings(home / "config.json")
    task = exported.SavedTask.of(settings)
    cfg = from_dict(ModelConfig, settings["model"], "model")
    return _of_task(home, cfg, params, tokenizer, task)


def _of_export(directory: pathlib.Path) -> LoadedModel:
    cfg, params = exported.read(directory, packed=True)
    cfg, tokenizer = _on_any_device(cfg), Tokenizer.load(vocabulary_file(directory))
    saved = exported.read_task(directory)
    if saved is None:
        return _of_parts(directory, cfg, params, exported.read_labels(directory), tokenizer)
    return _of_task(directory, cfg, params, tokenizer, saved)


def _of_task(
    directory: pathlib.Path,
    cfg: ModelConfig,
    params: dict,
    tokenizer: Tokenizer,
    saved: exported.SavedTask,
) -> LoadedModel:
    """Builds a model with the head that it was trained with."""
    cfg = _on_any_device(cfg)
    task = saved.restored(cfg, directory)
    return LoadedModel(
        directory=directory,
        module=task.model,
        params=_as_applied(params, cfg),
        tokenizer=tokenizer,
        config=cfg,
        kind=saved.config.name,
        task=saved.config,
        max_tokens=saved.seq_len,
        records=_records_of(saved.config, task.score_map or (0.0, 1.0)),
        problem=task.problem,
        labels=task.labels,
        trained=saved,
    )


def _of_hugging_face(directory: pathlib.Path) -> LoadedModel:
    found = foreign.read(directory)
    tokenizer = Tokenizer.load(directory).filled(found.cfg.vocab_size)
    return _of_parts(directory, found.cfg, found.params, found.labels, tokenizer)


def _of_parts(
    directory: pathlib.Path,
    cfg: ModelConfig,
    params: dict,
    labels: tuple[str, ...],
    tokenizer: Tokenizer,
) -> LoadedModel:
    """Builds a model whose head is determined by its parameters, as in BERT and GPT-2."""
    kind, task, records = head_of(params) if cfg.arch == "bert" else "", None, None
    if cfg.arch == "gpt":
        kind, task, head = "causal_lm", CausalLMConfig(head="tied"), TiedHead()
    elif kind == "pretraining":
        tied, nsp = "output" not in params["head"], "nsp" in params["head"]
        head = StandardHead(cfg, tied, nsp, log_frequency=())
    elif kind == "classification":
        outputs = params["head"]["classifier"]["bias"].shape[0]
        labels = labels or tuple(f"LABEL_{i}" for i in range(outputs))
        head = ClassificationHead(cfg, outputs)
        task = ClassificationConfig(labels=labels)
        records = _scores if outputs == 1 else functools.partial(answers, task=task)
    elif kind == "question_answering":
        head, task = SpanHead(cfg), QuestionAnsweringConfig()
    elif kind == "token_classification":
        head = TokenHead(cfg, params["head"]["tagger"]["bias"].shape[0], None)
    else:
        head = NoHead()
    return LoadedModel(
        directory=directory,
        module=EncoderWithHead(cfg, head),
        params=_as_applied(params, cfg),
        tokenizer=tokenizer,
        config=cfg,
        kind=kind,
        task=task,
        max_tokens=cfg.max_len,
        records=records,
        labels=labels,
    )


def _records_of(
    task: Any, score_map: tuple[float, float]
) -> Callable[[np.ndarray], list[dict]] | None:
    """Returns the function from a classifier's outputs to records; None for other tasks."""
    if not isinstance(task, ClassificationConfig):
        return None
    if not task.is_regression:
        return functools.partial(answers, task=task)
    shift, scale = score_map
    return lambda outputs_N1: answers(shift + scale * outputs_N1, task=task)


def _scores(outputs_N1: np.ndarray) -> list[dict]:
    return [{"prediction": float(score)} for score in outputs_N1[:, 0]]


def _on_any_device(cfg: ModelConfig) -> ModelConfig:
    """Allows a run that was trained with kernels to be used on any device."""
    return dataclasses.replace(cfg, attention_impl="auto")


def _as_applied(params: dict, cfg: ModelConfig) -> dict:
    params = jax.tree.map(jnp.asarray, params)
    if cfg.arch == "reparametrized":
        params = {**params, "encoder": reparametrize(params["encoder"], cfg.init_std)}
    return params
