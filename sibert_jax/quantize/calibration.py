"""Calibration batches, from the run's training data or a text file."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sibert_jax.checkpoint import checkpoints_in, steps_in
from sibert_jax.data import DataError, Masker, Sequences, join_pair, vocabulary_file
from sibert_jax.data.text_files import read_lines
from sibert_jax.errors import ConfigError
from sibert_jax.inference.loaded_model import LoadedModel
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import read_settings

INPUTS = ("tokens", "segments", "attention_mask", "masked_positions")  # the inputs of models
PACKED_LEN = 128  # maximum tokens of an example of packed text
PACKED_KINDS = ("pretraining", "causal_lm", "")  # of models that were not fine-tuned
MASK_RATE = 0.15  # if there is no run to define it
Batches = list[dict[str, np.ndarray]]


def of_run(
    model: LoadedModel, num_batches: int, batch_size: int, say: Callable[[str], None]
) -> Batches:
    """Returns the first training batches of the model's run, all padded to one length.

    Raises:
      ConfigError: the model is not from a run, or its data cannot be read.
    """
    home = model.directory
    if model.trained is None or not steps_in(checkpoints_in(home)):
        raise ConfigError(
            f"{home} is not the workdir of a run, so it has no training text to calibrate on; "
            "name a text with --data=FILE."
        )
    try:
        run = run_config(read_settings(home / "config.json"))
        data = dataclasses.replace(run.data, vocab=str(vocabulary_file(home)))
        _, found = run.task_type.load(
            run.model, run.task, data, global_batch_size=batch_size, seed=run.seed, progress=say
        )
        batches = [found.train.batch(i, slice(0, batch_size)) for i in range(num_batches)]
    except (ConfigError, DataError) as error:
        raise ConfigError(
            f"the training data of {home} cannot be read: {error}; give other text with --data=FILE"
        ) from None
    return of_one_length(batches, model.tokenizer.pad_id)


def of_file(
    model: LoadedModel, path: pathlib.Path, num_batches: int, batch_size: int, seed: int
) -> Batches:
    """Returns batches of the text of a file, in order.

    A fine-tuned model reads one example per line, with a tab between the parts of a pair; any other
    model reads all lines concatenated, cut into examples without padding.

    Raises:
      DataError: the file cannot be read or has too few examples.
    """
    lines = [line for line in read_lines(path) if line.strip()]
    packs = model.kind in PACKED_KINDS
    make = _packed if packs else _lines
    examples = make(lines, model)
    needed = num_batches * batch_size
    if len(examples) < needed:
        what = f"examples of {min(model.max_tokens, PACKED_LEN)} tokens" if packs else "lines"
        raise DataError(
            f"{path} has {len(examples)} {what}, and {num_batches} batches of {batch_size} need "
            f"{needed}; give more text, or fewer with --batches and --batch_size"
        )
    tokens, second_starts = zip(*examples[:needed])
    sequences = Sequences.of(tokens, second_starts, {}, model.tokenizer.pad_id)
    longest, places = max(map(len, tokens)), np.arange(needed).reshape(num_batches, batch_size)
    batches = [sequences.rows(place_B, longest) for place_B in places]
    if model.kind == "pretraining":
        rate = model.task.mask_rate if model.task is not None else MASK_RATE
        masker, rng = Masker(model.tokenizer, longest, rate, False), np.random.default_rng(seed)
        for batch in batches:
            batch["masked_positions"] = _mask(batch["tokens"], masker, rng)
    return of_one_length(batches, model.tokenizer.pad_id)


def _packed(lines: Sequence[str], model: LoadedModel) -> list[tuple[np.ndarray, int]]:
    tokens, _ = model.tokenizer.encode_flat(model.tokenizer.split(lines))
    length = min(model.max_tokens, PACKED_LEN)
    is_causal = model.config.is_causal  # trained without [CLS] and [SEP]
    num_text = length if is_causal else length - 2
    rows = tokens[: len(tokens) // num_text * num_text].reshape(-1, num_text)
    if is_causal:
        return [(row, length) for row in rows]
    return [join_pair(row, None, model.tokenizer, length) for row in rows]


def _lines(lines: Sequence[str], model: LoadedModel) -> list[tuple[np.ndarray, int]]:
    def joined(line: str) -> tuple[np.ndarray, int]:
        first, *second = model.tokenizer.encode_batch(line.split("\t", 1))
        return join_pair(first, second[0] if second else None, model.tokenizer, model.max_tokens)

    return [joined(line) for line in lines]


def _mask(tokens_BL: np.ndarray, masker: Masker, rng: np.random.Generator) -> np.ndarray:
    """Masks tokens in place; returns their positions, (B, P), padded with 0."""
    positions_BP = np.zeros((len(tokens_BL), masker.num_masked), np.int32)
    for tokens_L, positions_P in zip(tokens_BL, positions_BP):
        chosen = masker(tokens_L, rng)
        positions_P[: len(chosen)] = chosen
    return positions_BP


def of_one_length(batches: Sequence[Mapping[str, np.ndarray]], pad_id: int) -> Batches:
    """Returns the model inputs, padded to the longest batch."""
    longest = max(batch["tokens"].shape[1] for batch in batches)
    fill = {"tokens": pad_id, "segments": 0, "attention_mask": False}
    padded = []
    for batch in batches:
        short = longest - batch["tokens"].shape[1]
        padded.append(
            {
                name: np.pad(batch[name], ((0, 0), (0, short)), constant_values=fill[name])
                if name in fill
                else batch[name]
                for name in INPUTS
                if name in batch
            }
        )
    return padded
