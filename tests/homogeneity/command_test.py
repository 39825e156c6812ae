"""python -m sibert_jax.homogeneity: what it prints, draws and returns."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = """
import jax.numpy as jnp

def ratio():
    return lambda w, x: x * jnp.log(w[0] / w[1]), jnp.ones(2), jnp.ones(3)

def difference_of_logs():
    return lambda w: jnp.log(w[0]) - jnp.log(w[1]), jnp.array([2.0, 3.0])

def of_one(x):
    return x

"""


def run(*arguments, cwd=ROOT):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", "sibert_jax.homogeneity", *arguments],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False,
    )  # fmt: skip


def test_a_config_gets_a_table_a_picture_and_a_certificate(tmp_path):
    done = run("--config=configs/demo.py", "--config.model.depth=1", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "| PretrainingModel/encoder/stem | dot_general | float32[2,128,128] | 2 |" in done.stdout
    assert "certified." in done.stdout.splitlines()[-4]
    assert (tmp_path / "homogeneity.md").read_text() in done.stdout + "\n"
    assert (tmp_path / "homogeneity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_of_a_config_with_a_kernel_the_same_attention_as_einsums_is_analysed():
    done = run("--config=configs/demo.py", "--config.model.attention_impl=pallas")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Primitives without a rule" not in done.stdout


def test_a_function_that_is_invariant_without_a_proof_is_listed_as_such(tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    done = run("network:difference_of_logs", "--numerical", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Not certified" in done.stdout
    assert "network.py:8" in done.stdout  # its line
    assert "holds numerically, not proven: params: 1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give either --config=NAME or the dotted path"),
        (("no_such_module:f",), "'no_such_module:f' cannot be imported"),
        (("--config=no_such_file.py",), "no_such_file.py"),
        (("network:of_one",), "network:of_one() raised TypeError: of_one() missing 1 required"),
    ],
)
def test_wrong_input_ends_with_one_sentence_and_status_2(arguments, sentence, tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
