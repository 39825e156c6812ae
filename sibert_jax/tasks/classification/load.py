"""Turns labeled sentences into a task with its batches."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import PartitionSpec as P

from sibert_jax.data import (
    DataError,
    LabeledConfig,
    Sequences,
    WordPiece,
    join_pair,
)
from sibert_jax.data.tables import format_of, one_file
from sibert_jax.errors import named_by
from sibert_jax.model import ModelConfig
from sibert_jax.tasks import invariant_head
from sibert_jax.tasks.classification.answers import (
    answer_lines,
    answers,
    held_out_set,
)
from sibert_jax.tasks.classification.config import ClassificationConfig, dataset_of
from sibert_jax.tasks.classification.dataset import Dataset
from sibert_jax.tasks.classification.examples import (
    Examples,
    read_examples,
)
from sibert_jax.tasks.classification.labels import class_weights, find_labels
from sibert_jax.tasks.classification.new_text import read_new_text, unlabeled
from sibert_jax.tasks.classification.task import Classification, real_rows
from sibert_jax.tasks.finetuning import DEFAULTS, json_lines
from sibert_jax.tasks.finetuning_data import (
    check_names,
    finetuning_data,
    hold_out,
    load_tokenizer,
    one_pass,
    sets_in_batches,
)
from sibert_jax.tasks.task import NewText, TaskData, TaskType


def load_classification(
    model: ModelConfig,
    task: ClassificationConfig,
    data: LabeledConfig,
    *,
    global_batch_size: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[Classification, TaskData]:
    """Reads and tokenizes the examples, and creates the task.

    Args:
      model: the encoder's config.
      task: the task's config, which selects the dataset.
      data: the files, and the maximum length of an example in tokens.
      global_batch_size: examples per batch.
      seed: random seed of the order of the training examples.
      progress: called with progress messages.

    Raises:
      DataError: a set cannot be read, or has no labels for training or evaluation.
    """
    tokenizer, seq_len = load_tokenizer(data.vocab, model), data.seq_len
    dataset = dataset_of(task, data)
    sets = _read_sets(data, dataset, task.strict, progress)
    for examples in sets.values():
        for line in examples.report:
            progress(f"{examples.name}: {line}")
    sequences = {name: _tokenize(s, dataset, tokenizer, seq_len) for name, s in sets.items()}
    seq_lens, batches = sets_in_batches(
        sequences, global_batch_size=global_batch_size, num_seq_lens=data.num_seq_lens, seed=seed
    )
    progress(
        f"{dataset.name}: {len(sequences['train']):,} examples to train on, "
        f"{len(sequences['valid']):,} to evaluate on; {batches['train'].description}"
    )
    held_out = [
        held_out_set(sets[name], own, task) for name, own in batches.items() if name != "train"
    ]
    task_data = finetuning_data(batches["train"], held_out, tokenizer, dataset.metrics[0])
    weights = class_weights(task.class_weights, task.classes, sets["train"].labels)
    return Classification(model, task, seq_lens, weights), task_data


def load_new_sentences(
    model: ModelConfig,
    task: ClassificationConfig,
    data: LabeledConfig,
    text: str | Sequence[str] | Sequence[tuple[str, str]],
    tokenizer: WordPiece,
    *,
    global_batch_size: int,
    progress: Callable[[str], None],
    workdir: pathlib.Path,
) -> tuple[Classification, NewText]:
    """Loads text without labels, to be classified.

    Args:
      text: a file with the columns of the training file, or a text file with one sentence per line
        (for pairs, two separated by a tab); or the sentences or pairs themselves.
      tokenizer: the run's tokenizer.
      model, task, data, global_batch_size, progress: as for training.
    """
    del workdir
    dataset = dataset_of(task, data)
    is_path = isinstance(text, str)
    examples = read_new_text(text, dataset) if is_path else unlabeled(text, dataset)
    for line in examples.report:
        progress(f"{text}: {line}")
    sequences = _tokenize(examples, dataset, tokenizer, data.seq_len)
    seq_lens, batches = one_pass(sequences, global_batch_size)

    def records(results: list) -> list[dict]:
        found = answers(real_rows(results)["outputs"], task)
        rows = zip(found, *examples.texts)
        return [answer | dict(zip(dataset.text_names, texts)) for answer, *texts in rows]

    as_json = is_path and format_of(one_file(text)) == "jsonl"
    new = NewText(batches, records, json_lines if as_json else answer_lines)
    return Classification(model, task, seq_lens), new


def _read_sets(
    data: LabeledConfig, dataset: Dataset, strict: bool, progress: Callable[[str], None]
) -> dict[str, Examples]:
    """Reads the sets "train" and "valid", and the test sets by their path."""

    def read(key: str, path: str, labeled: bool) -> Examples:
        with named_by(f"data.{key}"):
            return read_examples(data.source, path, dataset, strict=strict, labeled=labeled)

    train = read("path", data.path, labeled=True)
    if data.valid_path:
        valid = read("valid_path", data.valid_path, labeled=True)
    for key, examples in (("path", train), ("valid_path", valid if data.valid_path else train)):
        if examples.labels is None:  # such as a test set of TFDS
            raise DataError(f"data.{key} ({examples.name}) has no labels; name a labeled set")
    if not data.valid_path:
        train, valid = _split(train, dataset, data.valid_fraction, progress)
    tests = {f"test {path}": read("test_path", path, labeled=False) for path in data.test_paths}
    check_names([valid.name, *(examples.name for examples in tests.values())])
    return {"train": train, "valid": valid} | tests


def _split(
    examples: Examples, dataset: Dataset, fraction: float, progress: Callable[[str], None]
) -> tuple[Examples, Examples]:
    """Splits examples into those to train on and those to hold out."""
    labels_N = examples.labels if dataset.labels else np.zeros(len(examples.ids), np.int32)
    out_N = hold_out(examples.texts, labels_N, fraction, "examples", progress, dataset.labels)
    return examples.subset(~out_N), dataclasses.replace(examples.subset(out_N), report=())


def _tokenize(
    examples: Examples, dataset: Dataset, tokenizer: WordPiece, seq_len: int
) -> Sequences:
    columns = [tokenizer.encode_batch(column) for column in examples.texts]
    seconds = columns[1] if len(columns) == 2 else [None] * len(examples.ids)
    joined = [join_pair(a, b, tokenizer, seq_len) for a, b in zip(columns[0], seconds)]
    tokens, second_starts = zip(*joined)
    labels = examples.labels
    if labels is None:
        labels = np.zeros(len(examples.ids), np.int32 if dataset.labels else np.float32)
    return Sequences.of(tokens, second_starts, {"labels": labels}, tokenizer.pad_id)


TASK = TaskType(
    config=ClassificationConfig,
    data=LabeledConfig,
    seq_len=128,
    make=Classification,
    load=load_classification,
    load_new_text=load_new_sentences,
    sharding=(
        (r"head/pooler/kernel", P("fsdp", "tensor")),  # D, D
        (r"head/classifier/kernel", P("fsdp", None)),  # D, labels
        (r"head/(pooler|classifier)/bias", P(None)),  # D or labels
        *invariant_head.SHARDING,
    ),
    defaults=DEFAULTS,
    invariant_parts=invariant_head.invariant_parts,
    found_in_data=("labels", "score_range"),
    find=find_labels,
)
