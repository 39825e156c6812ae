"""The model that ships: its size, what it answers, and the numbers on its card."""

import pathlib
import re

import pytest

import sibert_jax
from models import evaluate

ROOT = pathlib.Path(__file__).parents[1]
MINI = ROOT / "models/mini"


def test_it_has_at_most_eight_megabytes():
    assert sum(file.stat().st_size for file in MINI.iterdir()) <= 8e6


def test_its_words_fit_their_neighbors():
    model = sibert_jax.load(MINI)
    (guess,) = model.fill_mask("he was born in new [MASK] city in the united states .", top_k=1)
    assert guess.token == "york"


def test_the_card_states_its_loss_on_the_license(capsys):
    assert evaluate.main([str(MINI), str(ROOT / "LICENSE")]) == 0
    found = dict(line.split() for line in capsys.readouterr().out.splitlines()[-7:])
    stated = re.search(r"`LICENSE`[^\n]* ([0-9]+\.[0-9]+)", (MINI / "README.md").read_text())
    assert float(found["mlm_loss"]) == pytest.approx(float(stated[1]), abs=0.002)


@pytest.mark.parametrize("directory", ["", "runs"])
def test_a_directory_that_is_no_export_is_named(directory, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([str(tmp_path / directory), str(ROOT / "LICENSE")])
    assert str(tmp_path) in capsys.readouterr().err


def test_the_python_of_its_card_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (MINI / "README.md").read_text(), re.DOTALL)
    exec(code, {})
    assert "(2, 128)" in capsys.readouterr().out
