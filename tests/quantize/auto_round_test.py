"""A layer as `auto-round`, the code of the method's authors, quantizes it.

Needs a Python with auto-round in AUTO_ROUND_PY.
"""

import os
import pathlib
import subprocess

import flax.linen as nn
import jax
import numpy as np
import pytest

from sibert_jax.interop.quantized import Form
from sibert_jax.quantize import Settings
from sibert_jax.quantize.blocks import ARRAY, Call
from sibert_jax.quantize.rounding import Knobs, quantized
from sibert_jax.quantize.tune import Examples, tune

pytestmark = pytest.mark.slow
SIDE = pathlib.Path(__file__).with_name("auto_round_side.py")
INPUTS, OUTPUTS, GROUP, STEPS = 128, 96, 32, 200
CASES = [(bits, symmetric) for bits in (2, 3, 4, 8) for symmetric in (0, 1)]


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    """Weights, correlated inputs, knobs within their ranges."""
    rng, groups = np.random.default_rng(0), OUTPUTS * INPUTS // GROUP
    arrays = {
        "w": rng.normal(size=(OUTPUTS, INPUTS)),
        "x": rng.normal(size=(512, INPUTS)) @ rng.normal(size=(INPUTS, INPUTS)) / INPUTS**0.5,
        "v": rng.uniform(-0.5, 0.5, (groups, GROUP)),
        "alpha": rng.uniform(0.5, 1, groups),
        "beta": rng.uniform(0.5, 1, groups),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def theirs(given, tmp_path_factory) -> dict[str, np.ndarray]:
    if "AUTO_ROUND_PY" not in os.environ:
        pytest.skip("needs auto-round; name a Python that has it in AUTO_ROUND_PY")
    folder = tmp_path_factory.mktemp("auto_round")
    np.savez(folder / "given.npz", **given, cases=CASES, group=GROUP, steps=STEPS)
    command = [os.environ["AUTO_ROUND_PY"], SIDE, folder / "given.npz", folder / "found.npz"]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(folder / "found.npz"))


@pytest.mark.parametrize(("bits", "symmetric"), CASES)
def test_the_same_knobs_give_the_same_weights(given, theirs, bits, symmetric):
    form = Form((INPUTS, OUTPUTS), (0,), bits, GROUP, bool(symmetric))
    shape = form.grouped_shape
    shapes = {"v": shape, "alpha": shape[:2], "beta": shape[:2]}
    knobs = Knobs(*(given[name].reshape(of) for name, of in shapes.items()))
    found = quantized(given["w"].T, form, knobs).float32()
    np.testing.assert_allclose(found.T, theirs[f"weight {bits} {symmetric}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("bits", "symmetric"), CASES)
def test_the_tuned_error_is_within_5_percent(given, theirs, bits, symmetric):
    form = Form((INPUTS, OUTPUTS), (0,), bits, GROUP, bool(symmetric))
    call = Call(nn.Dense(OUTPUTS, use_bias=False), jax.tree.structure(((0,), {})), (ARRAY,))
    x_SBLI = given["x"].reshape(1, 8, 64, INPUTS)
    target_SBLO, mask_SBL = x_SBLI @ given["w"].T, np.ones((1, 8, 64), bool)
    examples = Examples([x_SBLI], [target_SBLO], mask_SBL)
    settings = Settings(bits=bits, group=GROUP, symmetric=bool(symmetric), steps=STEPS)
    tuned = tune(call, {"kernel": given["w"].T}, {"kernel": form}, examples, settings)
    wanted = theirs[f"error {bits} {symmetric}"]
    assert tuned.error == pytest.approx(wanted, rel=0.05)
