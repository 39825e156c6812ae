"""Examples/s of fine-tuning and of prediction, on made-up examples as long as those of a task."""

import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence

import jax
import ml_collections
import numpy as np

from benchmarks import measuring, train_step
from sibert_jax.configs import glue, squad1
from sibert_jax.data.tokenizers.word_piece import SPECIAL_PIECES
from sibert_jax.train.evaluate import Evaluator

# Mean pieces of an example of GLUE without [CLS] and [SEP], as docs/finetuning.md has them.
MEAN_PIECES = {"sst2": (11,), "mnli": (24, 12)}
LABELS = {"sst2": ("0", "1"), "mnli": ("entailment", "neutral", "contradiction")}
BERT, SIBERT = "BERT, AdamW", "SIBERT, LAMB"
ARCHS = {BERT: "bert", SIBERT: "sibert"}
WORDS = np.array([f"w{i}" for i in range(8192 - len(SPECIAL_PIECES))])


def measure(
    tasks: Sequence[str] = ("sst2", "mnli", "squad"),
    *,
    num_batches: int = 16,
    repeats: int = 3,
    changes: dict | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> measuring.Result:
    """Speed of the compiled steps and of prediction on the same number of batches.

    Args:
      tasks: of `MEAN_PIECES`, or squad.
      num_batches: of one repeat; of 32 examples, or of as many windows.
      repeats: of each contestant.
      changes: of the configs.
      devices: what the mesh is made of; None: all of them.
    """
    rows = []
    for task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            started = {
                name: train_step.start(
                    config(task, arch, pathlib.Path(folder), num_batches, changes or {}), devices
                )
                for name, arch in ARCHS.items()
            }
        padding = {name: {"padding": run.data.train.padding_share} for name, run in started.items()}
        for what, timer in (("training", _training), ("prediction", _prediction)):
            timed = {name: timer(run, num_batches) for name, run in started.items()}
            values = measuring.in_turn(timed, repeats)
            rows += measuring.rows(values, BERT, f"{task}, {what}", padding)
    return measuring.Result(
        title="Fine-tuning and prediction, 2 layers × 128, 8,192 WordPieces, batch 32",
        unit="examples/s",
        more_is_better=True,
        baseline=BERT,
        rows=rows,
        notes=[
            "Made-up examples whose lengths have the mean of the task's; of SQuAD, windows of 128. "
            "*padding*: its share of the tokens of the training set."
        ],
    )


def config(
    task: str, arch: str, folder: pathlib.Path, num_batches: int, changes: dict
) -> ml_collections.ConfigDict:
    """The mini config of a task, on examples that are written into a folder."""
    vocab, data = folder / "vocab.txt", folder / f"{task}.data"
    vocab.write_text("\n".join([*SPECIAL_PIECES, *WORDS]) + "\n")
    if task == "squad":
        config = squad1.get_config(f"size=mini,arch={arch}")
        config.data.cache_dir = str(folder / "cache")
        data.with_suffix(".json").write_text(json.dumps(_questions(num_batches * 32)))
        data = data.with_suffix(".json")
    else:
        config = glue.get_config(f"task={task},arch={arch}")
        config.data.test_path = ""
        data = data.with_suffix(".tsv")
        data.write_text(_sentences(task, num_batches * 32))
    config.data.path = config.data.valid_path = str(data)
    config.data.vocab = str(vocab)
    config.train.compilation_cache_dir = ""
    config.update_from_flattened_dict(changes)
    return config


def _sentences(task: str, count: int) -> str:
    """A TSV file; lengths are geometric, most of the sentences short and some long."""
    rng, means = np.random.default_rng(0), MEAN_PIECES[task]
    columns = ("sentence",) if len(means) == 1 else ("sentence1", "sentence2")
    rows = ["\t".join([*columns, "label"])]
    for i in range(count):
        lengths = np.minimum(rng.geometric([1 / mean for mean in means]), 60)
        texts = [" ".join(rng.choice(WORDS, length)) for length in lengths]
        rows.append("\t".join([*texts, LABELS[task][i % len(LABELS[task])]]))
    return "\n".join(rows) + "\n"


def _questions(count: int) -> dict:
    """A SQuAD file of contexts that fill one window of 128, with a question each."""
    rng, paragraphs = np.random.default_rng(0), []
    for i in range(count):
        words = rng.choice(WORDS, rng.integers(60, 110))
        answer = {"text": str(words[0]), "answer_start": 0}
        question = " ".join(rng.choice(WORDS, 10))
        qas = [{"id": str(i), "question": question, "answers": [answer]}]
        paragraphs.append({"context": " ".join(words), "qas": qas})
    return {"version": "1.1", "data": [{"title": "made up", "paragraphs": paragraphs}]}


def _training(run: train_step.Started, num_batches: int) -> Callable[[], float]:
    batches = [run.batch(index) for index in range(num_batches)]

    def timed() -> float:
        after = train_step.copy(run.state)
        since = time.perf_counter()
        for batch in batches:
            after, _ = run.trainer.step(after, batch)
        jax.block_until_ready(after)
        return num_batches * run.batch_size / (time.perf_counter() - since)

    return timed


def _prediction(run: train_step.Started, num_batches: int) -> Callable[[], float]:
    """As a finished run predicts a held-out set: batches made, moved and fetched."""
    held_out, evaluator = run.data.held_out[0].batches, Evaluator(run.trainer.shapes)
    evaluator.results(run.state.params, held_out, len(held_out))  # compiles

    def timed() -> float:
        since = time.perf_counter()
        evaluator.results(run.state.params, held_out, len(held_out))
        return len(held_out) * run.batch_size / (time.perf_counter() - since)

    return timed
