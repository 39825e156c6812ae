"""Labeled sentences to a task with its batches."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import PartitionSpec as P

from sibert_jax.data import (
    BucketedBatches,
    DataError,
    Sequences,
    Tokenizer,
    join_pair,
    seq_lens_for_one_pass,
    seq_lens_for_training,
)
from sibert_jax.data.cache import digest
from sibert_jax.data.config import LabeledConfig
from sibert_jax.data.documents import is_held_out
from sibert_jax.errors import named_by
from sibert_jax.files import atomically
from sibert_jax.model import ModelConfig
from sibert_jax.tasks import invariant_head
from sibert_jax.tasks.classification.examples import (
    Examples,
    read_examples,
    read_new_text,
    unlabeled,
)
from sibert_jax.tasks.classification.glue import METRICS, GlueTask
from sibert_jax.tasks.classification.task import (
    Classification,
    ClassificationConfig,
    answer_lines,
    predicted_labels,
    predicted_records,
    predictions,
    real_rows,
)
from sibert_jax.tasks.finetuning import DEFAULTS, load_tokenizer
from sibert_jax.tasks.task import HeldOut, NewText, TaskData, TaskType


def load_classification(
    model: ModelConfig,
    task: ClassificationConfig,
    data: LabeledConfig,
    *,
    global_batch_size: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[Classification, TaskData]:
    """Reads and tokenizes the examples and makes the task of them.

    Args:
      model: sizes of the encoder.
      task: which dataset.
      data: where it is, and the longest example in tokens.
      global_batch_size: examples of a batch.
      seed: of the order of the training examples.
      progress: called with a line of text now and then.

    Raises:
      DataError: a set cannot be read or has no labels to train on or evaluate by.
    """
    tokenizer, seq_len = load_tokenizer(data.vocab, model), data.seq_len
    sets = _read_sets(data, task)
    for examples in sets.values():
        for line in examples.report:
            progress(f"{examples.name}: {line}")
    sequences = {name: _tokenize(s, task.glue, tokenizer, seq_len) for name, s in sets.items()}
    longest = max(int(s.lengths.max()) for s in sequences.values())
    train = sequences["train"]
    seq_lens = seq_lens_for_training(train.lengths, global_batch_size, data.num_seq_lens, longest)

    def batches(sequences: Sequences, seed: int, shuffle: bool) -> BucketedBatches:
        return BucketedBatches(
            sequences, seq_lens, global_batch_size=global_batch_size, seed=seed, shuffle=shuffle
        )

    train_batches, valid_batches = batches(train, seed, True), batches(sequences["valid"], 0, False)
    progress(
        f"{task.glue.name}: {len(train):,} examples to train on, {len(sequences['valid']):,} to "
        f"evaluate on; {train_batches.description}"
    )
    held_out = tuple(
        held_out_set(sets[name], valid_batches if name == "valid" else batches(s, 0, False), task)
        for name, s in sequences.items()
        if name != "train"
    )
    task_data = TaskData(
        train=train_batches,
        valid=valid_batches,
        fingerprint=digest(train_batches.fingerprint, valid_batches.fingerprint, tokenizer.hash),
        steps_per_epoch=train_batches.steps_per_epoch,
        tokenizer=tokenizer,
        held_out=held_out,
        main_metric=task.glue.metrics[0],
        lower_is_better=False,
    )
    return Classification(model, task, seq_lens), task_data


def load_new_sentences(
    model: ModelConfig,
    task: ClassificationConfig,
    data: LabeledConfig,
    text: str | Sequence[str] | Sequence[tuple[str, str]],
    tokenizer: Tokenizer,
    *,
    global_batch_size: int,
    progress: Callable[[str], None],
) -> tuple[Classification, NewText]:
    """Text without labels, to be predicted.

    Args:
      text: a text file with one sentence per line (of a pair task two, separated by a tab), or a
        TSV file of the task; or the sentences or pairs themselves.
      tokenizer: of the run.
      model, task, data, global_batch_size, progress: as for training.
    """
    is_path = isinstance(text, str)
    examples = read_new_text(text, task.glue) if is_path else unlabeled(text, task.glue)
    for line in examples.report:
        progress(f"{text}: {line}")
    sequences = _tokenize(examples, task.glue, tokenizer, data.seq_len)
    seq_lens = seq_lens_for_one_pass(sequences.lengths, global_batch_size)
    batches = BucketedBatches(
        sequences, seq_lens, global_batch_size=global_batch_size, seed=0, shuffle=False
    )

    def records(results: list) -> list[dict]:
        answers = predicted_records(real_rows(results)["outputs"], task.glue)
        names = [names[0] for names in task.glue.texts]
        return [
            answer | dict(zip(names, texts)) for answer, *texts in zip(answers, *examples.texts)
        ]

    return Classification(model, task, seq_lens), NewText(batches, records, answer_lines)


def held_out_set(
    examples: Examples, batches: BucketedBatches, task: ClassificationConfig
) -> HeldOut:
    """Examples with what is done with their predictions."""

    def finish(results: list, directory: pathlib.Path) -> dict[str, float]:
        outputs_NC = real_rows(results)["outputs"]
        labels = predicted_labels(outputs_NC, task.glue)
        write_predictions(directory / f"{examples.name}.tsv", examples.ids, labels)
        predicted_N = predictions(outputs_NC, task.glue)
        if examples.labels is None:
            return {}
        return {name: METRICS[name](predicted_N, examples.labels) for name in task.glue.metrics}

    return HeldOut(examples.name, batches, finish)


def write_predictions(path: pathlib.Path, ids: list[str], labels: list[str]) -> None:
    """Writes GLUE's submission format, `index<TAB>prediction`, atomically."""
    pairs = zip(ids, labels, strict=True)
    lines = ["index\tprediction", *("\t".join(pair) for pair in pairs)]
    with atomically(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _read_sets(data: LabeledConfig, task: ClassificationConfig) -> dict[str, Examples]:
    """ "train", "valid" and the test sets by their path."""

    def read(key: str, path: str) -> Examples:
        with named_by(f"data.{key}"):
            return read_examples(data.source, path, task.glue, strict=task.strict)

    train = read("path", data.path)
    if data.valid_path:
        valid = read("valid_path", data.valid_path)
    else:
        out_N = np.array([is_held_out(list(t), data.valid_fraction) for t in zip(*train.texts)])
        train, valid = train.subset(~out_N), dataclasses.replace(train.subset(out_N), report=())
        if not train.ids or not valid.ids:
            raise DataError(
                f"data.valid_fraction={data.valid_fraction} holds out {len(valid.ids)} of "
                f"{len(train.ids) + len(valid.ids)} examples; name others in data.valid_path"
            )
    for key, examples in (("path", train), ("valid_path", valid)):
        if examples.labels is None:
            raise DataError(f"data.{key} ({examples.name}) has no labels; name a labeled set")
    tests = {f"test {path}": read("test_path", path) for path in data.test_paths}
    names = [valid.name, *(examples.name for examples in tests.values())]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(
            f"data.valid_path and data.test_path name two sets {twice[0]!r}, whose predictions "
            "would go to one file; rename one of them"
        )
    return {"train": train, "valid": valid} | tests


def _tokenize(examples: Examples, glue: GlueTask, tokenizer: Tokenizer, seq_len: int) -> Sequences:
    columns = [tokenizer.encode_batch(column) for column in examples.texts]
    seconds = columns[1] if len(columns) == 2 else [None] * len(examples.ids)
    joined = [join_pair(a, b, tokenizer, seq_len) for a, b in zip(columns[0], seconds)]
    tokens, second_starts = zip(*joined)
    labels = examples.labels
    if labels is None:
        labels = np.zeros(len(examples.ids), np.int32 if glue.labels else np.float32)
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
)
