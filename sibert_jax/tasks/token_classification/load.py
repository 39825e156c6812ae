"""Turns tagged sentences into a task with its batches."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.sharding import PartitionSpec as P

from sibert_jax.data import (
    BucketedBatches,
    WordPiece,
)
from sibert_jax.data.config import split_paths
from sibert_jax.data.tables import format_of, one_file
from sibert_jax.errors import named_by
from sibert_jax.files import atomically
from sibert_jax.model import ModelConfig
from sibert_jax.tasks import invariant_head
from sibert_jax.tasks.finetuning import DEFAULTS, json_lines, listed
from sibert_jax.tasks.finetuning_data import (
    check_names,
    finetuning_data,
    hold_out,
    load_tokenizer,
    one_pass,
    sets_in_batches,
)
from sibert_jax.tasks.task import HeldOut, NewText, TaskData, TaskType
from sibert_jax.tasks.token_classification.config import TaggedConfig
from sibert_jax.tasks.token_classification.rows import TaggedRows
from sibert_jax.tasks.token_classification.sentences import (
    TaggedSentences,
    found_tags,
    read_new_sentences,
    read_sentences,
    tag_numbers,
    untagged,
)
from sibert_jax.tasks.token_classification.task import (
    TokenClassification,
    TokenClassificationConfig,
    scores,
    words_of,
)


def find_tags(
    task: TokenClassificationConfig, data: TaggedConfig, say: Callable[[str], None]
) -> Mapping[str, object]:
    """Infers unspecified tags from the training sentences."""
    if task.labels:
        return {}
    with named_by("data.path"):
        tags = found_tags(_read(data.path, task, data))
    say(f"{len(tags)} tags: {listed(tags)}")
    return {"labels": tags}


def load_token_classification(
    model: ModelConfig,
    task: TokenClassificationConfig,
    data: TaggedConfig,
    *,
    global_batch_size: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[TokenClassification, TaskData]:
    """Reads and tokenizes the sentences, and creates the task.

    Args:
      model: the encoder's config.
      task: the task's config.
      data: the files, and the maximum length of a row in tokens.
      global_batch_size: rows per batch.
      seed: random seed of the order of the training rows.
      progress: called with progress messages.

    Raises:
      DataError: a set cannot be read.
    """
    tokenizer = load_tokenizer(data.vocab, model)
    sets = _read_sets(task, data, progress)
    rows = {}
    for name, own in sets.items():
        numbers = tag_numbers(own, task.labels, pathlib.Path(data.path).name)
        rows[name] = TaggedRows(own.words, numbers, tokenizer, data.seq_len)
        lines = [*own.report]
        if rows[name].num_cut:
            lines.append(
                f"{rows[name].num_cut:,} of {len(own.words):,} sentences are longer than "
                f"{data.seq_len} tokens and are split between words"
            )
        for line in lines:
            progress(f"{own.name}: {line}")
    seq_lens, batches = sets_in_batches(
        rows, global_batch_size=global_batch_size, num_seq_lens=data.num_seq_lens, seed=seed
    )
    progress(
        f"{len(sets['train'].words):,} sentences to train on, {len(sets['valid'].words):,} to "
        f"evaluate on; {batches['train'].description}"
    )
    held_out = [
        _held_out(sets[name], own, rows[name].sentences, task)
        for name, own in batches.items()
        if name != "train"
    ]
    task_data = finetuning_data(batches["train"], held_out, tokenizer, task.metrics[0])
    valid = rows["valid"]
    return TokenClassification(model, task, seq_lens, valid.sentences), task_data


def load_new_sentences(
    model: ModelConfig,
    task: TokenClassificationConfig,
    data: TaggedConfig,
    text: str | Sequence[str] | Sequence[Sequence[str]],
    tokenizer: WordPiece,
    *,
    global_batch_size: int,
    progress: Callable[[str], None],
    workdir: pathlib.Path,
) -> tuple[TokenClassification, NewText]:
    """Loads sentences without tags, to be tagged.

    Args:
      text: a file in the format of the training file, whose tags are ignored; a `.txt` file with
        one sentence per line; or the sentences themselves, as texts or lists of words.
      tokenizer: the run's tokenizer.
      model, task, data, global_batch_size, progress: as for training.
    """
    del workdir
    is_path = isinstance(text, str)
    own = read_new_sentences(text, token=data.token) if is_path else untagged(text)
    for line in own.report:
        progress(f"{own.name}: {line}")
    rows = TaggedRows(own.words, None, tokenizer, data.seq_len)
    seq_lens, batches = one_pass(rows, global_batch_size)

    def records(results: list) -> list[dict]:
        found = words_of(results, rows.sentences)
        return [
            {
                "tokens": words,
                "prediction": [task.labels[i] for i in predicted],
                "probability": probability.astype(float).tolist(),
            }
            for words, predicted, probability in zip(
                own.words, found["predicted"], found["probability"], strict=True
            )
        ]

    as_json = is_path and format_of(one_file(text)) == "jsonl"
    form = json_lines if as_json else _conll_lines
    return TokenClassification(model, task, seq_lens), NewText(batches, records, form)


def _conll_lines(records: list[dict]) -> list[str]:
    lines = []
    for record in records:
        lines += [f"{w}\t{tag}" for w, tag in zip(record["tokens"], record["prediction"])] + [""]
    return lines


def _held_out(
    own: TaggedSentences,
    batches: BucketedBatches,
    sentences: np.ndarray,
    task: TokenClassificationConfig,
) -> HeldOut:
    def finish(results: list, directory: pathlib.Path) -> dict:
        words = words_of(results, sentences)
        lines = []
        for tokens, gold, predicted in zip(own.words, own.tags, words["predicted"], strict=True):
            answers = [task.labels[i] for i in predicted]
            lines += ["\t".join(row) for row in zip(tokens, gold, answers, strict=True)] + [""]
        with atomically(directory / f"{own.name}.conll") as temporary:
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        found, by_type = scores(words["predicted"], words["tags"], task)
        return found | ({"classes": by_type} if by_type else {})

    return HeldOut(own.name, batches, finish)


def _read(path: str, task: TokenClassificationConfig, data: TaggedConfig) -> TaggedSentences:
    return read_sentences(path, token=data.token, tag=data.tag, strict=task.strict)


def _read_sets(
    task: TokenClassificationConfig, data: TaggedConfig, progress: Callable[[str], None]
) -> dict[str, TaggedSentences]:
    """Reads the sets "train" and "valid", and the test sets by their path."""
    with named_by("data.path"):
        train = _read(data.path, task, data)
    if data.valid_path:
        with named_by("data.valid_path"):
            valid = _read(data.valid_path, task, data)
    else:
        train, valid = _split(train, data.valid_fraction, progress)
    sets = {"train": train, "valid": valid}
    for path in split_paths(data.test_path):
        with named_by("data.test_path"):
            sets[f"test {path}"] = _read(path, task, data)
    check_names([own.name for name, own in sets.items() if name != "train"])
    return sets


def _split(
    own: TaggedSentences, fraction: float, progress: Callable[[str], None]
) -> tuple[TaggedSentences, TaggedSentences]:
    count = len(own.words)
    texts = ([" ".join(words) for words in own.words],)
    out_N = hold_out(texts, np.zeros(count, np.int32), fraction, "sentences", progress)

    def part(keep_N: np.ndarray, report: tuple[str, ...]) -> TaggedSentences:
        kept = np.flatnonzero(keep_N)
        columns = [[column[i] for i in kept] for column in (own.places, own.words, own.tags)]
        return TaggedSentences(own.name, *columns, report)

    return part(~out_N, own.report), part(out_N, ())


TASK = TaskType(
    config=TokenClassificationConfig,
    data=TaggedConfig,
    seq_len=128,
    make=TokenClassification,
    load=load_token_classification,
    load_new_text=load_new_sentences,
    sharding=(
        (r"head/tagger/kernel", P("fsdp", None)),  # D, tags
        (r"head/tagger/bias", P(None)),  # tags
        *invariant_head.SHARDING,
    ),
    defaults=DEFAULTS,
    invariant_parts=invariant_head.invariant_parts,
    found_in_data=("labels",),
    find=find_tags,
)
