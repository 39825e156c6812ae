"""How every command ends, and how it reads a path."""

import subprocess
import sys

import pytest

from sibert_jax import command
from sibert_jax.checkpoint.__main__ import main as checkpoint
from sibert_jax.files import user_path
from sibert_jax.main import parse
from sibert_jax.report.__main__ import main as report


def test_a_closed_pipe_ends_a_command_quietly():
    script = "from sibert_jax import command; command.run(lambda words: print('x\\n' * 100_000))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()  # as `| head -0` does
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


@pytest.mark.parametrize(("status", "wanted"), [(None, None), (0, 0), (1, 1)])
def test_the_exit_status_is_what_main_returns(status, wanted):
    with pytest.raises(SystemExit) as ended:
        command.run(lambda words: status)
    assert ended.value.code == wanted


HEAVY = ("jax", "flax", "tokenizers", "tensorflow_datasets", "tensorflow", "pyarrow", "clu")


@pytest.mark.parametrize("module", ["data", "report"])
def test_modules_that_need_no_jax_load_none(module):
    script = f"import sys, sibert_jax.{module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_a_module_of_ours_that_is_missing_is_a_fault_of_the_program():
    def main(words):
        raise ModuleNotFoundError("No module named 'sibert_jax.tarin'", name="sibert_jax.tarin")

    with pytest.raises(ModuleNotFoundError):
        command.run(main)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give exactly one of --config (to train), --predict and --embed (for new text)."),
        (["--config=demo", "--predict=x"], "give exactly one of --config"),
        (["--predict=x", "--embed=x"], "give exactly one of --config"),
        (["--config=demo"], "--workdir is missing"),
        (["--predict=x", "--workdir=w", "--config.seed=3"], "unknown argument '--config.seed=3'"),
        (["--embed=x", "--out=y", "--workdir=w", "-x"], "unknown argument '-x'; --embed takes"),
        (["--workdir=w", "--predict=x", "--profile=1:2"], "--profile traces training"),
        (["--workdir=w", "--predict=x", "--show_config"], "--show_config needs --config=NAME"),
        (["--workdir=w", "--embed=x"], "--embed=FILE and --out=NAME.npy must be given together"),
        (["--workdir=w", "--config=demo", "--step=best"], "--step is for --predict and --embed"),
    ],
)
def test_options_of_main_that_do_not_go_together(words, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")


def test_the_help_of_main_fits_on_a_screen(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_the_home_directory_is_expanded_by_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x"
    assert user_path("~nobody_of_this_name/x").parts[0] == "~nobody_of_this_name"
    given, _ = parse(["--config=demo", "--workdir=~/runs/a"])
    assert given.workdir == tmp_path / "runs/a"
    for words in (["list", "~/runs/a"], ["export", "~/runs/a", "~/a.safetensors"]):
        with pytest.raises(SystemExit):
            checkpoint(words)
        assert f"{tmp_path}/runs/a" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        report(["~/runs/a", "--out=~/report"])
    assert f"no such directory: {tmp_path}/runs/a" in capsys.readouterr().err
