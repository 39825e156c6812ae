"""python -m sibert_jax.homogeneity: its output, files and exit status."""

import pytest

from sibert_jax import command
from sibert_jax.homogeneity.__main__ import main

NETWORK = """
import jax.numpy as jnp

def difference_of_logs():
    return lambda w: jnp.log(w[0]) - jnp.log(w[1]), jnp.array([2.0, 3.0])

def of_one(x):
    return x

"""


def run(*arguments):
    """Return the exit status of the command."""
    with pytest.raises(SystemExit) as ended:
        command.run(main, arguments)
    return ended.value.code or 0


@pytest.fixture
def network(tmp_path, monkeypatch):
    (tmp_path / "network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_config_gets_a_table_a_picture_and_a_certificate(tmp_path, capsys):
    small = [f"--config.model.{k}" for k in ("width=8", "num_heads=2", "ffn_width=8", "depth=1")]
    assert run("--config=demo", *small, f"--out={tmp_path}") == 0
    said = capsys.readouterr().out
    assert "/encoder/stem | dot_general | float32[" in said
    assert "certified." in said
    assert (tmp_path / "homogeneity.md").read_text() in said + "\n"
    assert (tmp_path / "homogeneity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_config_with_a_kernel_is_analyzed_as_einsums(capsys):
    assert run("--config=demo", "--config.model.attention_impl=pallas") == 0
    assert "Primitives without a rule" not in capsys.readouterr().out


@pytest.mark.usefixtures("network")
def test_invariance_without_a_proof_is_listed(capsys):
    assert run("network:difference_of_logs", "--numerical") == 1
    said = capsys.readouterr().out
    for words in ("Not certified", "network.py:5", "holds numerically, not proven: params: 1"):
        assert words in said


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either --config=NAME or MODULE:FUNCTION"),
        (("no_such_module:f",), "'no_such_module:f' cannot be imported"),
        (("--config=no_such_file.py",), "no_such_file.py"),
        (("network:of_one",), "network:of_one() raised TypeError: of_one() missing 1 required"),
    ],
)
def test_wrong_input_ends_with_one_sentence_and_status_2(arguments, words, capsys):
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
