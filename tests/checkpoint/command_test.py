"""The command line: what it prints, its exit status, and the page that shows it."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import logging
from safetensors import safe_open

from sibert_jax import command
from sibert_jax.checkpoint import manifest as manifests
from sibert_jax.checkpoint.__main__ import main
from tests.checkpoint.conftest import ROOT, make_state


@pytest.fixture
def workdir(two, tmp_path):
    return shutil.copytree(two, tmp_path / "run")


@pytest.fixture
def call(capsys, monkeypatch):
    """Runs the command in this process; returns status, stdout and stderr."""
    monkeypatch.setattr(logging, "set_verbosity", lambda level: None)

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            command.run(main, [str(argument) for argument in arguments])
        return exit_.value.code, *capsys.readouterr()

    return call


def test_list_and_verify_tell_the_good_from_the_bad(call, workdir):
    assert call("verify", workdir) == (0, "1: verified\n2: verified\n", "")
    (workdir / "checkpoints/2/rest/_METADATA").write_text("{}")
    for name in ("10", "7.corrupt"):
        (workdir / "checkpoints" / name).mkdir()
    status, out, err = call("list", workdir / "checkpoints")
    assert (status, err) == (0, "")
    _, one, two, ten, aside, note = out.splitlines()
    assert re.fullmatch(r" +1  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d +0.0 MB  files ok", one)
    assert "BAD: file rest/_METADATA has 2 bytes instead of" in two
    assert "BAD: it has no manifest.json" in ten
    assert aside.startswith("7.corrupt: ")
    assert "`verify`" in note
    status, out, _ = call("verify", workdir)
    assert (status, [line[:6] for line in out.splitlines()]) == (1, ["1: ver", "2: BAD", "10: BA"])


def test_show_lists_run_and_leaves(call, workdir):
    status, out, _ = call("show", workdir, 1)
    assert status == 0
    assert "config.model.width = 4" in out
    assert re.search(r"params/encoder/stem/kernel +\(4, 4\) +bfloat16 +32  [0-9a-f]{16}\n", out)
    assert call("show", workdir)[1].startswith(f"{workdir / 'checkpoints/2'}, written ")


def test_diff_tells_what_differs_and_by_how_much(call, workdir):
    status, out, _ = call("diff", workdir, 1, workdir / "checkpoints/2")
    assert status == 0
    a, b = (make_state(step)[0]["encoder"]["embed"]["token"] for step in (1, 2))
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    relative = np.linalg.norm(a - b) / np.linalg.norm(a)
    assert "learning_rate: 0.1 -> 0.2\n" in out
    assert (
        f"params/encoder/embed/token: largest difference {abs(a - b).max():.3g}, relative to the "
        f"norm {relative:.3g}\n" in out
    )
    assert out.endswith("1 leaves are bitwise identical\n")  # rest/bad


def test_export_needs_no_package_of_ours_and_replaces_nothing(call, workdir):
    target = workdir / "model.safetensors"
    assert call("export", workdir, target)[0] == 0
    with safe_open(target, "flax") as file:
        kernel = file.get_tensor("encoder/stem/kernel")
        assert kernel.dtype == "bfloat16"
        np.testing.assert_array_equal(kernel, make_state(2)[0]["encoder"]["stem"]["kernel"])
        assert json.loads(file.metadata()["step"]) == 2
    before = target.read_bytes()
    status, _, err = call("export", workdir, target, "--step=1")
    assert (status, err) == (2, f"error: {target} exists; remove it or choose another name.\n")
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "nowhere"), "nowhere is not a directory"),
        (("verify", "."), "holds no checkpoint."),
        (("show", "run", "9"), "there is no checkpoint"),
        (("show", "run", "2"), "checkpoint {run}/checkpoints/2 cannot be used: manifest.json"),
        (("diff", "run", "1", "2"), "cannot be used: manifest.json cannot be read"),
        (("export", "run", "p.npz"), "p.npz must end in .safetensors"),
        (("export", "run", "no/p.safetensors"), "no/p.safetensors cannot be written"),
        (("export", "run", "p.safetensors", "--step=2"), "2 cannot be used: manifest.json"),
    ],
)
def test_what_is_wrong_is_one_sentence(call, workdir, monkeypatch, arguments, message):
    monkeypatch.chdir(workdir.parent)
    (workdir / "checkpoints/2/manifest.json").write_text("{")
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert message.format(run=workdir) in err


@pytest.mark.slow
def test_a_corrupt_file_prints_no_traceback(workdir):
    """In a process of its own, as Orbax complains from other threads and at exit."""
    (workdir / "checkpoints/2/params/manifest.ocdbt").write_bytes(b"")
    found = manifests.read(workdir / "checkpoints/2")
    found.files.clear()  # so that it is Orbax that stumbles
    found.write(workdir / "checkpoints/2")
    done = subprocess.run(
        [sys.executable, "-m", "sibert_jax.checkpoint", "verify", str(workdir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "2: BAD: params cannot be read (" in done.stdout
