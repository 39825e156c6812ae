"""Turns SQuAD files into a task with its batches."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from jax.sharding import PartitionSpec as P

from sibert_jax.data import (
    BucketedBatches,
    DataError,
    WordPiece,
)
from sibert_jax.data.cache import Cache, digest
from sibert_jax.data.config import split_paths
from sibert_jax.errors import ConfigError, named_by
from sibert_jax.files import user_path
from sibert_jax.keys import check, key
from sibert_jax.model import ModelConfig
from sibert_jax.tasks import invariant_head
from sibert_jax.tasks.finetuning import DEFAULTS, tab_lines
from sibert_jax.tasks.finetuning_data import (
    check_names,
    finetuning_data,
    load_tokenizer,
    one_pass,
    sets_in_batches,
)
from sibert_jax.tasks.question_answering.dataset import (
    Dataset,
    read_dataset,
    read_new_questions,
    unlabeled,
)
from sibert_jax.tasks.question_answering.features import (
    Features,
    WindowRows,
    WindowSizes,
    build_features,
    load_features,
    with_answers,
)
from sibert_jax.tasks.question_answering.predictions import Answerer
from sibert_jax.tasks.question_answering.task import (
    QuestionAnswering,
    QuestionAnsweringConfig,
    check_keys,
)
from sibert_jax.tasks.task import HeldOut, NewText, TaskData, TaskType


@dataclasses.dataclass(frozen=True)
class SquadFilesConfig:
    """Keys under `data` of a question-answering config: SQuAD files and the vocabulary."""

    path: str = key(
        "squad/train-v1.1.json", "training file in SQuAD format (.json, .json.gz or .json.xz)"
    )
    valid_path: str = key("squad/dev-v1.1.json", "file to evaluate on, in SQuAD format")
    test_path: str = key("", "comma-separated files to answer after the last step", may_change=True)
    vocab: str = key(
        "", "WordPiece vocabulary file; empty: that of checkpoint.init_from", may_change=True
    )
    cache_dir: str = key(
        "~/.cache/sibert_jax", "directory for cached windows of tokens", may_change=True,
        per_process=True,
    )  # fmt: skip
    seq_len: int | None = key(
        None, "maximum tokens of a window, question included; None: 384, or model.max_len if less",
        low=8,
    )  # fmt: skip
    num_seq_lens: int = key(
        8, "maximum number of different lengths that batches are padded to", low=1
    )

    def __post_init__(self):
        check("data", self)
        for name, wanted in (("path", "SQuAD file"), ("valid_path", "SQuAD file")):
            if not getattr(self, name):
                raise ConfigError(f"data.{name} is empty; name a {wanted}.")
        if not self.cache_dir:
            raise ConfigError("data.cache_dir is empty; name a directory.")


def load_question_answering(
    model: ModelConfig,
    task: QuestionAnsweringConfig,
    data: SquadFilesConfig,
    *,
    global_batch_size: int,
    seed: int,
    progress: Callable[[str], None],
) -> tuple[QuestionAnswering, TaskData]:
    """Cuts the windows of all files, or memory-maps earlier ones, and creates the task.

    Args:
      model: the encoder's config.
      task: the task's config.
      data: the files, and the maximum length of a window in tokens.
      global_batch_size: windows per batch.
      seed: random seed of the order of the training windows.
      progress: called with progress messages.

    Raises:
      DataError: a file cannot be used.
    """
    tokenizer = load_tokenizer(data.vocab, model)
    cache, sizes = Cache(data.cache_dir, progress), _sizes(task, data.seq_len)

    def rows(path: str, for_training: bool) -> WindowRows:
        features, fingerprint = load_features(
            user_path(path),
            tokenizer,
            sizes,
            cache,
            for_training=for_training,
            strict=task.strict,
            progress=progress,
        )
        asked = features.window_question  # without skipped questions
        has_none = features.answer_first[asked] < 0
        if for_training and (has_none.all() or (has_none.any() and not task.unanswerable)):
            _check_answers(read_dataset(path, unique_ids=False), path, task)
        return WindowRows(features, tokenizer, fingerprint)

    with named_by("data.path"):
        train = rows(data.path, for_training=True)
    test_paths = split_paths(data.test_path)
    paths = (data.valid_path, *test_paths)
    check_names([_name(pathlib.Path(path).name) for path in paths])
    with named_by("data.test_path"):
        datasets = {path: _read(path, task) for path in test_paths}
    with named_by("data.valid_path"):
        datasets[data.valid_path] = _read(data.valid_path, task)
        _check_answers(datasets[data.valid_path], data.valid_path, task)
    held_out_rows = {path: rows(path, for_training=False) for path in paths}
    valid = held_out_rows[data.valid_path]
    features, is_labeled_W = with_answers(valid.features, datasets[data.valid_path])
    held_out_rows[data.valid_path] = WindowRows(features, tokenizer, valid.fingerprint)
    seq_lens, batches = sets_in_batches(
        {"train": train, **{f"held out {path}": held_out_rows[path] for path in paths}},
        global_batch_size=global_batch_size,
        num_seq_lens=data.num_seq_lens,
        seed=seed,
    )
    progress(batches["train"].description)
    answerers = [_answerer(datasets[path], held_out_rows[path].features, task) for path in paths]
    held_out = [_held_out(a, batches[f"held out {path}"]) for a, path in zip(answerers, paths)]
    task_data = finetuning_data(batches["train"], held_out, tokenizer, "f1")
    return QuestionAnswering(model, task, seq_lens, answerers[0], is_labeled_W), task_data


def load_new_questions(
    model: ModelConfig,
    task: QuestionAnsweringConfig,
    data: SquadFilesConfig,
    text: str | Sequence[tuple[str, str]],
    tokenizer: WordPiece,
    *,
    global_batch_size: int,
    progress: Callable[[str], None],
    workdir: pathlib.Path,
) -> tuple[QuestionAnswering, NewText]:
    """Loads questions with contexts, to be answered.

    Args:
      text: a SQuAD file, or one with a question, a tab and its context per line; or (question,
        context) pairs.
      tokenizer: the run's tokenizer.
      model, task, data, global_batch_size, progress: as for training.
    """
    del workdir
    dataset = read_new_questions(text) if isinstance(text, str) else unlabeled("new", text)
    for line in dataset.report:
        progress(f"{text}: {line}")
    features, _ = build_features(
        dataset,
        tokenizer,
        _sizes(task, data.seq_len),
        for_training=False,
        strict=task.strict,
        progress=progress,
    )
    windows = WindowRows(features, tokenizer, digest(dataset.name))
    seq_lens, batches = one_pass(windows, global_batch_size)
    answerer = _answerer(dataset, features, task)

    def records(results: list) -> list[dict]:
        predictions = answerer.answers(results)
        answers = [answerer.text(predictions[question.id]) for question in dataset.questions]
        return [
            {"prediction": answer, "question": question.text}
            for answer, question in zip(answers, dataset.questions)
        ]

    return QuestionAnswering(model, task, seq_lens, answerer), NewText(batches, records, tab_lines)


def _sizes(task: QuestionAnsweringConfig, seq_len: int) -> WindowSizes:
    return WindowSizes(seq_len, task.max_query_len, task.doc_stride)


def _read(path: str, task: QuestionAnsweringConfig) -> Dataset:
    dataset = read_dataset(path)
    if dataset.is_labeled:  # otherwise there is nothing to score
        _check_answers(dataset, path, task)
    return dataset


def _check_answers(dataset: Dataset, path: str, task: QuestionAnsweringConfig) -> None:
    """Raises DataError for a file without answers, and for SQuAD 2.0 where 1.1 is expected."""
    if not dataset.is_labeled:
        raise DataError(
            f"{path} has no answers; name a labeled file, and this one in data.test_path or "
            "--predict"
        )
    if dataset.unanswerable and not task.unanswerable:
        without = [question.id for question in dataset.questions if not question.answers]
        raise DataError(
            f"{path} has questions without an answer, but task.unanswerable=False "
            f"({len(without):,} of {len(dataset.questions):,}, such as {without[0]!r}); set it to "
            "True, or name a file of SQuAD 1.1"
        )


def _name(file_name: str) -> str:
    return file_name.partition(".json")[0]


def _answerer(dataset: Dataset, features: Features, task: QuestionAnsweringConfig) -> Answerer:
    return Answerer(
        dataset,
        features,
        n_best=task.n_best,
        unanswerable=task.unanswerable,
        null_threshold=task.null_threshold,
    )


def _held_out(answerer: Answerer, batches: BucketedBatches) -> HeldOut:
    name = _name(answerer.dataset.name)

    def finish(results: list, directory: pathlib.Path) -> dict[str, float]:
        return answerer.finish(results, directory / name)

    return HeldOut(name, batches, finish)


TASK = TaskType(
    config=QuestionAnsweringConfig,
    data=SquadFilesConfig,
    seq_len=384,
    make=QuestionAnswering,
    load=load_question_answering,
    load_new_text=load_new_questions,
    sharding=(
        (r"head/span/kernel", P("fsdp", None)),  # D, 2
        (r"head/span/bias", P(None)),  # 2
        *invariant_head.SHARDING,
    ),
    defaults=DEFAULTS,
    invariant_parts=invariant_head.invariant_parts,
    check=check_keys,
)
