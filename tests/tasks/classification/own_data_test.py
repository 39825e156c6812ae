"""Files of one's own, from training to predictions, and what is learned from their labels."""

import csv
import gzip
import json
import lzma

import jax
import numpy as np
import pytest

from sibert_jax.tasks.classification.config import dataset_of
from sibert_jax.tasks.classification.new_text import read_new_text
from sibert_jax.tasks.finetuning_data import held_out_mask
from sibert_jax.tools.predict import predict
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.run import load_task
from tests.builders import random_params

from .conftest import WORDS


def sentences(count: int, num_classes: int) -> list[tuple[str, int]]:
    """Five words each, of a part of the vocabulary that only its class has."""
    rng, size = np.random.default_rng(0), len(WORDS) // num_classes
    rows = [(i % num_classes, rng.integers(0, size, 5)) for i in range(count)]
    return [(" ".join(WORDS[label * size + i] for i in words), label) for label, words in rows]


CITIES = ("bonn", "essen, west", 'the "hague"', "köln")


def four_classes_as_csv(folder):
    with lzma.open(folder / "train.csv.xz", "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["nr", "question", "type"])
        rows.writerows((i, text, CITIES[c]) for i, (text, c) in enumerate(sentences(80, 4)))
    new = folder / "new.txt"
    new.write_text("w0 w1 w2\n\nw40 w41\n")
    return {"path": folder / "train.csv.xz", "text": "question", "label": "type"}, new


def six_classes_before_the_text(folder):
    lines = [f"{'ABCDEF'[label]}:x {text}\n" for text, label in sentences(72, 6)]
    (folder / "train.txt").write_text("".join(lines))
    (folder / "new.tsv").write_text("text\nw0 w1 w2\n\nw40 w41\n")
    return {"path": folder / "train.txt", "format": "label_first"}, folder / "new.tsv"


def pairs_as_json_lines(folder):
    rows = [{"a": text, "b": text[:5], "same": label == 1} for text, label in sentences(48, 2)]
    with gzip.open(folder / "train.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (folder / "new.jsonl").write_text('{"b": "w1", "a": "w2"}\n\n{"a": "w3", "b": "w4"}\n')
    columns = {"text": "a,b", "label": "same"}
    return {"path": folder / "train.jsonl.gz"} | columns, folder / "new.jsonl"


def scores_as_tsv(folder):
    rows = [f"{1000 - 250 * label}\t{text}\n" for text, label in sentences(64, 4)]
    (folder / "train.tsv").write_text("".join(rows))
    (folder / "new.txt").write_text("w0 w1\n\nw42\n")
    columns = {"header": False, "text": 1, "label": 0}
    return {"path": folder / "train.tsv"} | columns, folder / "new.txt"


SHAPES = [
    (four_classes_as_csv, {}, sorted(CITIES)),
    (
        six_classes_before_the_text,
        {"class_weights": "balanced", "label_smoothing": 0.1},
        ["A:x", "B:x", "C:x", "D:x", "E:x", "F:x"],
    ),
    (pairs_as_json_lines, {"head": "invariant"}, ["false", "true"]),
    (scores_as_tsv, {"kind": "regression"}, [250.0, 1000.0]),
]


def answers_of(lines, new):
    """Predictions, each with the sum of its probabilities; one for each line of text."""
    if ".jsonl" in new.name:
        records = [json.loads(line) for line in lines]
        return [(r["prediction"], sum(r["probabilities"].values())) for r in records]
    header, *rows = [line.split("\t") for line in lines]
    columns = [i for i, name in enumerate(header) if name.startswith("p(")]
    return [(row[0], sum(float(row[i]) for i in columns) if columns else 1.0) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(("write", "task", "found"), SHAPES)
def test_one_command_from_a_file_to_predictions(configure, train_one, tmp_path, write, task, found):
    data, new = write(tmp_path)
    keys = {f"data.{k}": v for k, v in data.items()} | {f"task.{k}": v for k, v in task.items()}
    config, run = configure({"train.num_epochs": 20.0} | keys), tmp_path / "run"
    train_one(config, run)
    settings = json.loads((run / "config.json").read_text())["task"]
    assert (settings["labels"] or settings["score_range"]) == found
    ((name, scores),) = json.loads((run / "results.json").read_text())["held_out"].items()
    if "kind" in task:
        assert {"pearson", "spearman", "rmse"} < scores.keys()
    else:
        assert list(scores["classes"]) == found
        assert np.trace(scores["confusion"]) / np.sum(scores["confusion"]) == scores["accuracy"]
    header = (run / f"predictions/{name}.tsv").read_text().splitlines()[0]
    assert header.startswith("index\tlabel\tprediction")
    lines = predict(run, str(new), print, jax.devices()[:1])
    answers = answers_of(lines, new)
    assert len(answers) == 3
    assert [total for _, total in answers] == pytest.approx([1.0] * 3, abs=1e-4)
    assert "kind" in task or {prediction for prediction, _ in answers} <= set(found)
    assert load_task(run_config(resolve(config, run)), print)[1].fingerprint


@pytest.mark.parametrize(("write", "task", "found"), SHAPES)
def test_labels_are_found_and_kept_in_order(configure, tmp_path, write, task, found):
    data, new = write(tmp_path)
    keys = {f"data.{k}": v for k, v in data.items()} | {f"task.{k}": v for k, v in task.items()}
    run = run_config(resolve(configure(keys)))
    assert list(run.task.labels or run.task.score_range) == found
    task, data = load_task(run, print)
    (held_out,) = data.held_out
    batch = held_out.batches.batch(0, slice(None))
    params = random_params(task.init, batch, std=0.5)
    results = [jax.device_get(jax.jit(task.eval_batch)(params, batch))]
    assert len(held_out.batches) == 1
    scores = held_out.finish(results, tmp_path)
    lines = (tmp_path / f"{held_out.name}.tsv").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"))) for line in lines[1:]]
    if run.task.labels:
        assert {row["label"] for row in rows} == set(found)  # some of each is held out
        assert {row["prediction"] for row in rows} <= set(found)
        best = [max(found, key=lambda c: float(row[f"p({c})"])) for row in rows]
        assert best == [row["prediction"] for row in rows]
        assert scores["accuracy"] == np.mean([row["label"] == row["prediction"] for row in rows])
    else:
        errors = [float(row["label"]) - float(row["prediction"]) for row in rows]
        assert scores["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4)
        assert all(250 <= float(row["prediction"]) <= 1000 for row in rows)
    task, text = run.task_type.load_new_text(
        run.model,
        run.task,
        run.data,
        str(new),
        data.tokenizer,
        global_batch_size=8,
        progress=print,
        workdir=tmp_path,
    )
    result = jax.device_get(jax.jit(task.eval_batch)(params, text.batches.batch(0, slice(None))))
    answers = answers_of(text.lines([result]), new)
    assert [total for _, total in answers] == pytest.approx([1.0] * 3, abs=1e-4)


def test_a_part_of_each_class_is_held_out_and_equal_texts_stay_together():
    texts = ([f"text {i // 2}" for i in range(60)],)
    groups = np.array([0] * 40 + [1] * 18 + [2, 2])
    mask = held_out_mask(texts, groups, 0.2)
    assert np.bincount(groups, weights=mask).tolist() == [8, 4, 0]
    assert mask[::2].tolist() == mask[1::2].tolist()
    order = np.random.default_rng(0).permutation(60)  # the order of the file does not matter
    again = held_out_mask(([texts[0][i] for i in order],), groups[order], 0.2)
    assert again.tolist() == mask[order].tolist()


@pytest.mark.parametrize(
    ("weights", "by_class", "smoothing"),
    [("balanced", [8 / 12, 8 / 4], 0.0), ("1:3", [1, 3], 0.4)],
)
def test_class_weights_and_smoothing_are_those_of_the_formulas(
    configure, tmp_path, weights, by_class, smoothing
):
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "w1 w2,0\n" * 6 + "w3,1\nw4,1\n")
    keys = {"task.class_weights": weights, "task.label_smoothing": smoothing}
    config = configure({"data.path": path, "data.valid_path": path} | keys)
    task, data = load_task(run_config(resolve(config)), print)
    batch = data.valid.batch(0, slice(None))
    params = random_params(task.init, batch, std=0.5)

    def loss_and_outputs(params, batch):
        sums, counts = task.sums(params, batch), task.denominators(batch)
        return sums["label_loss"] / counts["label_loss"], task.apply(params, batch)[0]

    loss, outputs = jax.jit(loss_and_outputs)(params, batch)
    log_p = np.asarray(jax.nn.log_softmax(outputs), np.float64)
    target = (1 - smoothing) * np.eye(2)[batch["labels"]] + smoothing / 2
    weight = batch["example_weights"] * np.array(by_class)[batch["labels"]]
    wanted = np.sum(weight * -np.sum(target * log_p, axis=1)) / np.sum(weight)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_a_run_keeps_its_labels_when_its_files_are_gone(configure, tmp_path, vocab):
    path, run = tmp_path / "train.csv", tmp_path / "run"
    path.write_text("text,label\na,10\nb,9\n")
    config = configure({"data.path": path})
    recorded = resolve(config)
    (run / "checkpoints/5").mkdir(parents=True)
    (run / "config.json").write_text(recorded.to_json())
    path.unlink()
    assert resolve(config, run).task.labels == recorded.task.labels == ("9", "10")


@pytest.mark.parametrize(
    ("keys", "name", "content"),
    [
        ({"data.text": "b"}, "new.csv", 'a,b\nx,"w1, w2"\n\ny,w3\n'),
        ({"data.text": "b"}, "new.txt", "w1, w2\n\nw3\n"),
        ({"data.header": False, "data.text": 1}, "new.csv", 'x,"w1, w2"\n\ny,w3\n'),
        ({"data.header": False, "data.text": 1}, "new.csv", '"w1, w2"\n\nw3\n'),
        ({"data.header": False, "data.text": 1}, "new.tsv", "x\tw1, w2\n\ny\tw3\n"),
        ({"data.header": False, "data.text": 1}, "new.tsv", "w1, w2\n\nw3\n"),
        ({"data.text": "b"}, "new.jsonl", '{"b": "w1, w2"}\n\n{"b": "w3"}\n'),
        ({"data.format": "label_first"}, "new.txt", "w1, w2\n\nw3\n"),
    ],
)
def test_new_text_has_the_columns_or_a_text_a_line(configure, tmp_path, keys, name, content):
    (tmp_path / name).write_text(content)
    path, labels = {"data.path": "train.csv"}, {"task.labels": "('x', 'y')"}
    run = run_config(resolve(configure(path | labels | keys)))
    found = read_new_text(str(tmp_path / name), dataset_of(run.task, run.data))
    assert found.texts == (["w1, w2", "", "w3"],)
