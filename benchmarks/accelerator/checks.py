"""Numerical checks that depend on the device: Lemma 2.4, scale invariance, attention."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import attention as forms
from benchmarks import train_step
from benchmarks.accelerator.sizes import SIBERT, Sizes
from benchmarks.accelerator.timings import config
from benchmarks.rival import last_line
from sibert_jax.homogeneity import rescaling_error

PASSED, FAILED, UNAVAILABLE = "passed", "failed", "not available here"
NUM_STEPS = 4
# Greatest differences relative to the greatest entry, for scales that are no power of two and for
# other orders of summation.
SCALING_BOUND = {"float32": 1e-3, "bfloat16": 0.1}
ATTENTION_BOUND = {"float32": 1e-4, "bfloat16": 5e-2}
IMPLS = {"blockwise": forms.BLOCKWISE, "pallas": forms.KERNELS}


class Check(NamedTuple):
    """The outcome of one check.

    Attributes:
      name: what was checked.
      found: the greatest difference, relative to the greatest entry; None: not computed.
      bound: what `found` may be; 0: bitwise equality.
      status: PASSED, FAILED or UNAVAILABLE.
      why: the reason if nothing was computed.
    """

    name: str
    found: float | None
    bound: float
    status: str
    why: str = ""


def compared(name: str, found: float, bound: float) -> Check:
    """A check whose difference is known; NaN fails."""
    return Check(name, found, bound, PASSED if found <= bound else FAILED)


def network(sizes: Sizes, dtype: str) -> list[Check]:
    """Lemma 2.4 of Li et al. 2022 on the training step, and f(c·x) = f(x) for the network.

    With the stateless recipe, parameters or loss times a power of two give the same losses and the
    same directions bit for bit.
    """
    length = sizes.step_lengths[0]
    made = config(SIBERT, length, sizes.step_tokens // length, sizes.check_keys)
    made.model.dtype = dtype
    run = train_step.start(made, jax.devices()[:1], train_step.load_random)
    made.task.loss_scale = 2.0**5
    scaled = train_step.start(made, jax.devices()[:1], train_step.load_random)
    reference = trajectory(run)
    same_run, params_scaled = trajectory(run), trajectory(run, 2.0**-8)
    task, params, batch = run.trainer.shapes.task, run.state.params, run.batch(0)
    by_factor = {}
    # Otherwise the matrix units round float32 to fewer bits, which is no error of the network.
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(task.logits)
        for c in (2.0**-10, 2.0**3, 1e-3, 10.0):
            by_factor[c] = float(rescaling_error(logits, params, batch, c=c))
    powers, others = (max(by_factor[c] for c in cs) for cs in ((2.0**-10, 2.0**3), (1e-3, 10.0)))
    found = [
        ("same run twice", difference(same_run, reference), 0.0),
        ("Lemma 2.4, parameters × 2⁻⁸", difference(params_scaled, reference), 0.0),
        ("Lemma 2.4, loss × 2⁵", difference(trajectory(scaled), reference), 0.0),
        ("f(cx) = f(x), c = 2⁻¹⁰ and 2³", powers, 0.0),
        ("f(cx) = f(x), c = 10⁻³ and 10", others, SCALING_BOUND[dtype]),
    ]
    return [compared(f"{name}, {dtype}", *values) for name, *values in found]


def trajectory(run: train_step.Started, c: float = 1.0) -> tuple[list[float], list[np.ndarray]]:
    """From c times the parameters: sums of the losses so far, and the last parameters over c."""
    state = run.trainer.init(jax.tree.map(lambda x: x * np.float32(c), run.state.params))
    losses = []
    for index in range(NUM_STEPS):
        state, report = run.trainer.step(state, run.batch(index))
        losses.append(float(report.window.sums["loss"]))
    return losses, [x / np.float32(c) for x in jax.tree.leaves(jax.device_get(state.params))]


def difference(found, wanted) -> float:
    """The greatest difference of an array of two trees, relative to its greatest entry."""
    errors = []
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        errors.append(np.abs(a - b).max() / (np.abs(b).max() or 1.0))
    return float(np.max(errors))  # NaN if any is


def attention(sizes: Sizes, dtype: str) -> list[Check]:
    """Output and gradients of each implementation against those of einsum in the same dtype.

    In bfloat16, also einsum against itself in float32, where causal rows of few keys are left out:
    their gradients are small differences of large terms.
    """
    inputs, mask_BL = cases(sizes)
    bound, checks = ATTENTION_BOUND[dtype], []
    for causal in (False, True):
        wanted = _computed("einsum", causal, inputs, mask_BL, dtype)
        if dtype != "float32" and not causal:
            exact = _computed("einsum", causal, jnp.asarray(inputs, dtype), mask_BL, "float32")
            label = f"{forms.EINSUM}, {dtype} against float32"
            checks.append(compared(label, difference(wanted, exact), bound))
        for impl, name in IMPLS.items():
            label = f"{name}{', causal' if causal else ''}, {dtype}"
            if impl == "pallas" and jax.default_backend() not in ("gpu", "tpu"):
                why = f"the kernels are for TPUs and NVIDIA GPUs, this is a {jax.default_backend()}"
                checks.append(Check(label, None, bound, UNAVAILABLE, why))
                continue
            try:
                found = _computed(impl, causal, inputs, mask_BL, dtype)
            except Exception as error:
                checks.append(Check(label, None, bound, FAILED, last_line(error)))
            else:
                checks.append(compared(label, difference(found, wanted), bound))
    return checks


def cases(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """q, k and v, (3, 2, L, H, 64), and mask_BL: dead rows, dead keys and padding.

    The entries of a query have one sign, and those of a key, so that no score and no row sum is
    close to 0, where any rounding is large. In the first sequence all keys are positive and every
    third query is negative, so its row is dead; a quarter of the second is padding.
    """
    shape = (3, 2, sizes.check_length, sizes.num_heads, 64)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal(shape, np.float32)
    inputs[:2] = np.abs(inputs[:2])
    inputs[0, :, ::3] *= -1
    inputs[1, 1] *= rng.choice(np.float32([-1, 1]), (sizes.check_length, 1, 1))
    mask_BL = np.ones(shape[1:3], bool)
    mask_BL[1, 3 * sizes.check_length // 4 :] = False
    return inputs, mask_BL


def _computed(impl: str, causal: bool, inputs, mask_BL: np.ndarray, dtype: str):
    inputs = jnp.asarray(inputs, dtype)
    # float32 in full, where the default is TF32 or bfloat16.
    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        return jax.device_get(forms.compiled(forms.relu(impl, causal), inputs, mask_BL)(inputs))
