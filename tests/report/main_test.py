"""The command writes both files or leaves the old ones; what it cannot read it names."""

import subprocess
import sys

import matplotlib.figure
import pytest

from sibert_jax.report.__main__ import main


@pytest.fixture
def runs(write_run, short):
    return [str(write_run(name, short)) for name in ("first", "second")]


def test_both_files_are_written_and_their_paths_printed(runs, tmp_path):
    """By a process that loads neither JAX nor pyplot."""
    script = (
        "import sys; from sibert_jax.report.__main__ import main; status = main(sys.argv[1:]); "
        "print(sorted({'jax', 'flax', 'matplotlib.pyplot'} & set(sys.modules))); sys.exit(status)"
    )
    out = tmp_path / "new" / "report"
    command = [sys.executable, "-W", "error", "-c", script, *runs, f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{out}/report.png", f"{out}/report.md", "[]"]
    assert done.stderr == ""
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.md").read_text()
    assert "(report.png)" in page
    assert "| first |" in page
    assert sorted(path.name for path in out.iterdir()) == ["report.md", "report.png"]


def full_disk(figure, path, **_):
    path.touch()
    raise OSError(28, "No space left on device", str(path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("first", "nowhere"), "no such directory: "),
        (("first", "first/../first"), "first is given twice; name each run once"),
        (("first", "--out=first/run.json"), "run.json is a file; name a directory"),
        (("first",), "No space left on device"),
    ],
)
def test_one_sentence_and_the_old_report_is_left(
    runs, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", full_disk)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "report"
    out.mkdir()
    before = dict.fromkeys(("report.md", "report.png"), b"old")
    for name, content in before.items():
        (out / name).write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        main(["--out=report", *arguments])
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
