import subprocess
import sys

import pytest

from sibert_jax.report import write
from sibert_jax.report.__main__ import main


def refused(capsys, *arguments) -> str:
    """The sentence with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def runs(write_run, rows):
    short = rows(num_steps=60, log_every=10, eval_every=30)
    return [str(write_run(name, short)) for name in ("first", "second")]


def test_both_files_are_written_and_their_paths_printed(runs, tmp_path, capsys):
    out = tmp_path / "new" / "report"
    assert main([*runs, f"--out={out}"]) == 0
    assert capsys.readouterr().out.split() == [f"{out}/report.png", f"{out}/report.md"]
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.md").read_text()
    assert "(report.png)" in page
    assert "| first |" in page
    assert sorted(path.name for path in out.iterdir()) == ["report.md", "report.png"]


def test_bad_input_is_one_sentence_and_status_2_and_writes_nothing(runs, tmp_path, capsys):
    out = tmp_path / "report"
    wanted = f"error: no such directory: {tmp_path}/nowhere\n"
    assert refused(capsys, runs[0], tmp_path / "nowhere", f"--out={out}") == wanted
    assert not out.exists()


def test_a_run_given_twice_is_refused(runs, tmp_path, capsys):
    sentence = refused(capsys, runs[0], runs[0] + "/../first", f"--out={tmp_path}/report")
    assert "first was given twice; name each run once" in sentence


def test_an_out_that_is_a_file_is_refused(runs, tmp_path, capsys):
    (tmp_path / "report").write_text("mine")
    sentence = refused(capsys, *runs, f"--out={tmp_path}/report")
    assert "report is a file; name a folder" in sentence
    assert (tmp_path / "report").read_text() == "mine"


def test_a_disk_that_fills_up_leaves_the_old_report_whole(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "report"
    main([runs[0], f"--out={out}"])
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(path, *_, **__):
        path.touch()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(write.pathlib.Path, "write_text", full)
    assert "No space left on device" in refused(capsys, *runs, f"--out={out}")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_command_needs_neither_jax_nor_pyplot(runs, tmp_path):
    script = (
        "import sys; from sibert_jax.report.__main__ import main; status = main(sys.argv[1:]); "
        "print(sorted({'jax', 'flax', 'matplotlib.pyplot'} & set(sys.modules))); sys.exit(status)"
    )
    command = [sys.executable, "-W", "error", "-c", script, *runs, f"--out={tmp_path}/report"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""
