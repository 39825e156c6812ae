"""Exports weights from workdirs and quantized models."""

import json
import pathlib
import shutil
from typing import NamedTuple

from sibert_jax.checkpoint import chosen, restore_all_params
from sibert_jax.data import Tokenizer, vocabulary_file
from sibert_jax.errors import InteropError
from sibert_jax.interop import exported, gpt2, hugging_face
from sibert_jax.interop.config_json import read_json
from sibert_jax.interop.find_head import head_of
from sibert_jax.interop.workdir_import import ORIGINAL, ORIGINAL_FILES, size_of
from sibert_jax.model import ModelConfig
from sibert_jax.train.resolve import read_settings


def export_weights(
    source: pathlib.Path,
    target: pathlib.Path,
    step: int | str | None = None,
    dtype: str = "float32",
) -> str:
    """Exports a checkpoint or a quantized model to a directory; returns a description.

    Args:
      source: the workdir, or a directory of sibert_jax.quantize, which is dequantized.
      target: the directory to write, new or empty.
      step: the checkpoint, as for `checkpoint.chosen`.
      dtype: dtype of the stored weights.
    """
    if exported.is_quantized(source):
        if step is not None:
            raise InteropError(
                f"{source} is a quantized model, which has no steps; leave --step={step} out."
            )
        model, origin = _of_quantized(source), f"dequantized from {source}"
    else:
        model, number = _of_workdir(source, step)
        origin = f"step {number:,}"
    kind = _write(target, model, dtype)
    original = source / ORIGINAL
    kept = [name for name in ORIGINAL_FILES if (original / name).is_file()]
    for name in kept:
        shutil.copyfile(original / name, target / name)
    if not kept:
        model.tokenizer.save(target / model.tokenizer.file_name)
    rounded = "" if dtype == "float32" else f", weights rounded to {dtype}"
    return f"{target}: {kind}, {size_of(model.params)}, {origin}{rounded}"


class _Trained(NamedTuple):
    """A model to be exported.

    Attributes:
      cfg, params, tokenizer: the model.
      home: the directory it was read from.
      title: the origin of the weights, for the README.
      labels: names of the head's outputs; () if they have none.
      score_map: for a score, as in `Task.score_map`.
      task: the task that the head was trained for; None: unknown.
      config: Hugging Face's `config.json` if the model was imported; otherwise None.
    """

    cfg: ModelConfig
    params: dict
    tokenizer: Tokenizer
    home: pathlib.Path
    title: str
    labels: tuple[str, ...]
    score_map: tuple[float, float] | None
    task: exported.SavedTask | None
    config: dict | None = None


def _of_workdir(source: pathlib.Path, step: int | str | None) -> tuple[_Trained, int]:
    """Reads the model in a checkpoint, and its step."""
    cfg, tokenizer = _model_of(source), Tokenizer.load(vocabulary_file(source))
    found = chosen(source, step)
    params, manifest = restore_all_params(found), found.manifest
    run, path = manifest.run, source / ORIGINAL / "config.json"
    is_run = "data_fingerprint" in run  # not imported weights
    trained = _Trained(
        cfg,
        params,
        tokenizer,
        home=source,
        title=f"step {manifest.step:,} of {source.name}",
        labels=tuple(run["labels"]) if "labels" in run else (),
        score_map=run.get("score_map"),
        task=exported.SavedTask.of(read_settings(source / "config.json")) if is_run else None,
        config=read_json(path) if path.is_file() else None,
    )
    return trained, manifest.step


def _of_quantized(source: pathlib.Path) -> _Trained:
    """Reads a quantized model, dequantized."""
    cfg, params = exported.read(source)
    task = exported.read_task(source)
    return _Trained(
        cfg,
        params,
        Tokenizer.load(vocabulary_file(source)),
        home=source,
        title=source.name,
        labels=exported.read_labels(source),
        score_map=None if task is None else task.restored(cfg, source).score_map,
        task=task,
    )


def _write(target: pathlib.Path, model: _Trained, dtype: str) -> str:
    """Writes Hugging Face's format if it fits the model, else ours; returns the class or arch."""
    cfg, params = model.cfg, model.params
    # Hugging Face's models have no window, no rotation, and a head that reads the first token.
    pools = model.task is not None and model.task.pools_tokens
    is_theirs = not cfg.attention_window and cfg.positions == "learned" and not pools
    if cfg.arch == "gpt" and is_theirs:
        end_id = model.tokenizer.end_id
        return gpt2.write(target, cfg, params, end_id=end_id, config=model.config, dtype=dtype)
    if cfg.arch == "bert" and is_theirs:
        return hugging_face.write(
            target,
            cfg,
            _in_unit(params, model.score_map),
            head_of(params),
            model.labels,
            pad_id=model.tokenizer.pad_id,
            config=model.config,
            dtype=dtype,
        )
    exported.write(target, cfg, params, model.title, model.labels, model.task, dtype)
    if model.task is not None:
        model.task.restored(cfg, model.home).save(target)
    return cfg.arch


def _in_unit(params: dict, score_map: tuple[float, float] | None) -> dict:
    """Folds the score map into weight and bias, so that scores are in the unit of the data."""
    shift, scale = score_map or (0.0, 1.0)
    if (shift, scale) == (0.0, 1.0) or "rows" in params["head"]["classifier"]:
        return params
    kernel, bias = (params["head"]["classifier"][name] for name in ("kernel", "bias"))
    classifier = {"kernel": kernel * scale, "bias": bias * scale + shift}
    return params | {"head": params["head"] | {"classifier": classifier}}


def _model_of(workdir: pathlib.Path) -> ModelConfig:
    """Reads the model config from the `config.json` of a workdir."""
    path = workdir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return ModelConfig(**config["model"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InteropError(f"{path} cannot be read ({error}); name the workdir of a run.") from None
