"""Published results are JSON lines, experiments/collect.py writes them, run.py runs the claims."""

import json
import pathlib
import pydoc_data.topics
import subprocess
import sys
import types

import pytest

from experiments import claims, run

ROOT = pathlib.Path(__file__).parents[1]


def test_a_line_for_each_run(tmp_path):
    keys = ("git_commit", "git_dirty", "versions", "device_kind", "devices", "learning_rate")
    described = dict.fromkeys((*keys, "weight_decay", "data_fingerprint"), "something")
    config = {"seed": 3, "data": {"path": "/data/a.txt,/data/b.txt", "valid_path": ""}}
    rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, "eval/loss": 1.5}]
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(described))
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [sys.executable, ROOT / "experiments/collect.py", f"{tmp_path}/first/", folder]
    found = [json.loads(line) for line in subprocess.check_output(command).splitlines()]
    config["data"]["path"] = "a.txt,b.txt"
    wanted = described | {"config": config, "eval": rows[1:]}
    assert found == [{"run": "first"} | wanted, {"run": "second"} | wanted]


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("experiments/*/results.json*")), ids=lambda path: path.parent.name
)
def test_published_results_are_a_json_object_a_line(path):
    assert path.suffix == ".jsonl"
    assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines())


def lines_of(name: str, workdir: pathlib.Path) -> list[dict]:
    """The results after a run at the smallest scale."""
    assert run.main([name, "--scale=minutes", f"--workdir={workdir}"]) == 0
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


def test_a_killed_claim_goes_on_to_the_same_results(tmp_path):
    lines = lines_of("homogeneity_hurts", tmp_path)
    plan = claims.load("homogeneity_hurts", "minutes").points("minutes")
    assert [line["point"] for line in lines] == plan
    file = tmp_path / "results.jsonl"
    kept = file.read_text().splitlines(keepends=True)[:-1]
    file.write_text("".join(kept) + '{"claim":"half a li')  # killed while it wrote a line
    (tmp_path / "results.png").unlink()
    again = lines_of("homogeneity_hurts", tmp_path)
    assert file.read_text().startswith("".join(kept))
    assert [line["result"] for line in again] == [line["result"] for line in lines]
    assert (tmp_path / "results.png").stat().st_size > 20_000
    assert (tmp_path / "results.md").read_text().count("\n| ") >= len(lines)


CONFIG = """
import os
from sibert_jax.configs import mini

def get_config():
    with open(__file__ + ".cores", "a") as file:
        print(len(os.sched_getaffinity(0)), os.environ.get("XLA_FLAGS"), file=file)
    return mini.get_config("paper")
"""


@pytest.mark.slow
def test_trained_points_end_in_lines_that_a_rerun_repeats(tmp_path):
    text = "\n\n".join(" ".join(topic.split()) for topic in pydoc_data.topics.topics.values())
    (tmp_path / "text.txt").write_text(text[:150_000])
    (tmp_path / "config.py").write_text(CONFIG)
    first = {"arm": "first", "config": str(tmp_path / "config.py"), **claims.text("hours")}
    first |= {"model.vocab_size": 300, "model.width": 16, "model.ffn_width": 32, "model.depth": 1}
    first |= {"data.seq_len": 16, "data.valid_fraction": 0.2, "optim.head.warmup_steps": 0}
    first |= {"train.num_steps": 4, "train.global_batch_size": 4, "train.log_every_steps": 2}
    first |= {"train.eval_batches": 1, "seed": 0}
    start = {"arm": "second", "checkpoint.init_from": f"{{runs}}/{claims.run_name(first)}"}
    claim = types.SimpleNamespace(
        measure=lambda found: {"rows": len(found.metric("train/loss").steps)}
    )
    known = claims.placeholders(str(tmp_path), tmp_path)
    job = run.Job("tiny", claim, "hours", [first | start, first], known, tmp_path, tmp_path)
    job.run(workers=1)
    lines = job.lines()
    assert [line["point"]["arm"] for line in lines] == ["second", "first"]
    for line in lines:
        result = line["result"]
        assert (result["status"], result["tokens"], result["rows"]) == ("finished", 256, 2)
        assert result["last"]["eval/mlm_loss"] == result["eval_loss"]
        assert result["state_bytes"] > 8 * 300 * 16  # LAMB's, of the table of the head
        assert line["provenance"]["seconds"] > 0
    cores = (tmp_path / "config.py.cores").read_text()
    assert cores.count("1 --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1\n") == 2
    job.verify(1)


def test_a_second_round_follows_from_the_results_of_the_first(tmp_path):
    claim = claims.load("decoder", "hours")
    first = claim.points("hours")
    assert len(first) == 6 * len(claim.ARMS)  # equal tuning

    def line(point, loss):
        curves = {"eval/loss": [[1.0, 2.0], [5.0, 4.0]]}
        result = {"eval_loss": loss, "state_bytes": 8, "num_parameters": 2, "curves": curves}
        return {"claim": "decoder", "scale": "hours", "point": point, "result": result}

    losses = [4.0 + (i % 6 - 3) ** 2 / 10 for i in range(len(first))]
    losses[0] = None  # diverged
    job = run.Job("decoder", claim, "hours", first, {}, tmp_path, tmp_path, claim.next_round)
    for point, loss in zip(first, losses):
        job.results.append(line(point, loss))
    later = job.plan()[len(first) :]
    for arm in claim.ARMS:
        own = [point for point in later if point["arm"] == arm]
        (best,) = (p for p, loss in zip(first, losses) if p["arm"] == arm and loss == 4.0)
        keys = ("optim.learning_rate", "optim.weight_decay", "optim.eta_lambda")
        assert all(point.get(key) == best.get(key) for point in own for key in keys)
        assert [point["seed"] for point in own] == [1, 2] + [0] * (0 if arm == claim.CONTROL else 4)
    assert {claims.digest(p) for p in first}.isdisjoint(map(claims.digest, later))
    for point in later:
        job.results.append(line(point, 4.5))
    job.draw()
    page = (tmp_path / "results.md").read_text()
    assert "| GPT, SGD-SaI | 4.333 ± 0.289 | +0.000 (p 1) | 4.317 ± 0.331 | 4.00 |" in page
    assert "| GPT, AdamW | 4.333 ± 0.289 | +0.000 | 4.200 ± 0.187 (1 diverged) | 4.00 |" in page
    assert "| GPT, SGD-SaI | 4.333 ± 0.289 | 4.500 | 4.500 | 4.500 | 4.500 |" in page


def test_the_theory_predicts_norms_and_bounds_gradients(tmp_path):
    for line in lines_of("theory", tmp_path):
        result = line["result"]
        if line["point"]["part"] != "norm":
            assert result["measured"] <= result["bound"]
        elif line["point"]["clip"] or line["point"]["noise"] == "constant":
            assert result["ratio"] == pytest.approx(1, abs=0.06)
            assert result["in_band"] > 0.99


def test_features_of_words_are_tuned_on_a_part_of_the_training_set(tmp_path):
    rows = [f"{i}\tw{i} yes\tw{i % 7}\tentailment" for i in range(40)]
    rows += [f"{i}\tw{i} no\tw{i % 7}\tnot_entailment" for i in range(40, 60)]
    text = "".join(f"{row}\n" for row in ("index\tsentence1\tsentence2\tlabel", *rows))
    (tmp_path / "rte.tsv").write_text(text)
    place = dict.fromkeys(("data.path", "data.test_path"), str(tmp_path / "rte.tsv"))
    claim = claims.load("glue", "hours")
    result = claim.compute({"arm": "TF-IDF", "dataset": "rte"} | place)
    assert result["majority"] == pytest.approx(2 / 3)
    chosen = next(row for row in result["tried"] if row[0] == 1)
    assert [result[key] for key in ("valid", "score", "C", "class_weight")] == list(chosen)
    assert result["score"] < max(row[1] for row in result["tried"])  # which chose nothing


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing", "--scale=minutes"), "claim 'nothing' is unknown; choose one of "),
        (("clip", "--scale=days"), "--scale=days is unknown; choose one of minutes, hours, gpu."),
        (("clip", "--scale=hours"), "C=1.5 reads data.path={train}; say where {train} is with"),
        (("glue", "--scale=minutes"), "TF-IDF reads data.path={data}/glue/RTE/train.tsv*; say"),
        (("clip", "--scale=hours", "--data=EMPTY"), "has no text; name a folder with *.txt"),
        (("clip", "--scale=minutes", "--workers=0"), "--workers=0 must be 1 to "),
        (("clip", "--scale=minutes", "--draw"), "has no result of --scale=minutes to draw."),
        (("clip", "--scale=minutes", "--verify=2"), "--verify=2: "),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = [word.replace("EMPTY", str(tmp_path / "empty")) for word in arguments]
    with pytest.raises(SystemExit) as ended:
        run.main([*words, f"--workdir={tmp_path}"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1
