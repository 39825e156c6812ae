from sibert_jax.report import read_run, table

ROW = {
    "step": 1000,
    "train/loss": 6.5,
    "optim/param_norm": 61.25,
    "optim/equilibrium_norm": 60.0,
    "optim/rotation": 0.0125,
    "optim/predicted_rotation": 0.01,
    "optim/clipped": 0.015,
    "perf/tokens_per_second": 5200.4,
}
PREDICTIONS = ("optim/equilibrium_norm", "optim/predicted_rotation")
EVALUATION = {"step": 1000, "eval/mlm_loss": 6.4567, "eval/mlm_accuracy": 0.1234}


def cells(markdown, heading):
    """The table under a heading as dictionaries by column."""
    block = markdown.split(f"## {heading}\n")[1].split("\n\n")[0].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").replace(r"\|", "¦").split(" | ")]
        for line in block.splitlines()
        if line.startswith("|")
    ]
    assert all(len(row) == len(rows[0]) for row in rows)
    return [dict(zip(rows[0], row)) for row in rows[2:]]


def test_row_shows_the_figures_with_their_units(write_run):
    (row,) = cells(table([read_run(write_run("sgd", [ROW, EVALUATION]))]), "Runs")
    assert row == {
        "run": "sgd",
        "arch": "sibert",
        "optimizer": "scale_invariant_sgd",
        "steps": "1,000 of 1,200",
        "tokens": "4.1 M",
        "train loss": "6.5000",
        "eval loss": "6.4567",
        "best eval loss (step)": "6.4567 (1,000)",
        "accuracy": "12.34%",
        "clip rate": "1.50%",
        "‖x‖ / predicted": "61.25 / 60",
        "rotation / predicted": "0.0125 / 0.01",
        "tokens/s": "5,200",
    }


def test_baseline_has_no_prediction_and_says_why(write_run, config):
    row = {k: v for k, v in ROW.items() if k not in PREDICTIONS}
    baseline = write_run("adam", [row], config(optim__name="adamw", model__arch="bert"))
    markdown = table([read_run(write_run("sgd", [ROW])), read_run(baseline)])
    sgd, adam = cells(markdown, "Runs")
    assert sgd["‖x‖ / predicted"] == "61.25 / 60"
    assert adam["‖x‖ / predicted"] == "61.25 / –"
    assert adam["rotation / predicted"] == "0.0125 / –"
    assert (
        "- adam: no predicted values, because the theory does not apply to optim.name=adamw"
        in markdown
    )
    assert "- sgd:" not in markdown


def test_only_settings_that_differ_are_listed(write_run, config):
    first, second = config(), config(init_scale=100, optim__clip_factor=None)
    second["model"]["branch_scale"] = 0.5
    runs = [read_run(write_run("a", [ROW], first)), read_run(write_run("b", [ROW], second))]
    assert cells(table(runs), "Settings that differ") == [
        {"key": "`init_scale`", "a": "1.0", "b": "100"},
        {"key": "`model.branch_scale`", "a": "–", "b": "0.5"},
        {"key": "`optim.clip_factor`", "a": "4.0", "b": "none"},
    ]
    assert "None; the runs have the same configuration." in table([runs[0], runs[0]])
    assert "Settings that differ" not in table(runs[:1])


def test_columns_that_no_run_fills_are_left_out(write_run):
    plain = read_run(write_run("a", [{**ROW, "train/mlm_loss": 6.5}]))
    nsp = read_run(write_run("b", [{**ROW, "train/mlm_loss": 6.0, "train/nsp_loss": 0.5}]))
    assert "train NSP loss" not in cells(table([plain]), "Runs")[0]
    first, second = cells(table([plain, nsp]), "Runs")
    assert (first["train MLM loss"], first["train NSP loss"]) == ("–", "–")
    assert [second[name] for name in ("train MLM loss", "train NSP loss")] == ["6.0000", "0.5000"]


def test_notes_name_the_run_and_divergence_shows(write_run):
    text = '{"step": 1, "train/loss": NaN}\n{"step": 2, "tr'
    markdown = table([read_run(write_run("broken|run", text))])
    (row,) = cells(markdown, "Runs")
    assert (row["run"], row["train loss"]) == ("broken¦run", "**nan**")
    assert "- broken|run: metrics.jsonl: the last line is incomplete" in markdown
    assert "- broken|run: train/loss is not finite in 1 of 1 rows, first at step 1" in markdown
