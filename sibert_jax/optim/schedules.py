"""Learning rate schedules with a linear warm-up, built from those of optax."""

import jax
import jax.numpy as jnp
import optax

from sibert_jax.optim.scalars import check_integer, check_scalar

# The paper divides the learning rate by 10 at 600k and at 900k of 1M steps.
PIECEWISE_MILESTONES = (0.6, 0.9)
PIECEWISE_FACTOR = 0.1


def _piecewise(peak_value, num_steps, warmup_steps):
    milestones = [round(fraction * num_steps) - warmup_steps for fraction in PIECEWISE_MILESTONES]
    if milestones[0] <= 0:
        raise ValueError(
            f"warmup_steps = {warmup_steps} reaches the first drop of the piecewise schedule at "
            f"step {milestones[0] + warmup_steps} of {num_steps}: shorten the warm-up."
        )
    values = [peak_value * PIECEWISE_FACTOR**drops for drops in range(len(milestones) + 1)]
    return optax.join_schedules([optax.constant_schedule(v) for v in values], milestones)


def _cosine(peak_value, steps, end_value):
    alpha = end_value / peak_value if peak_value else 0.0
    decay = optax.cosine_decay_schedule(peak_value, steps, alpha=alpha)
    # optax divides the count by a float, which strict dtype promotion rejects for an integer.
    return lambda count: decay(jnp.asarray(count, jnp.float32))


def _warmup_stable_decay(peak_value, steps, decay_steps, end_value):
    if not 0 < decay_steps <= steps:
        raise ValueError(
            f"decay_steps must be at least 1 and at most num_steps - warmup_steps = {steps}, found "
            f"{decay_steps}."
        )
    decay = optax.linear_schedule(peak_value, end_value, decay_steps)
    return optax.join_schedules([optax.constant_schedule(peak_value), decay], [steps - decay_steps])


def make_schedule(
    name: str,
    *,
    peak_value: float,
    num_steps: int,
    warmup_steps: int = 0,
    end_value: float = 0.0,
    decay_steps: int | None = None,
) -> optax.Schedule:
    """Return the schedule called `name`: a pure function of the step, float32.

    With W = warmup_steps and T = num_steps, the value rises linearly from 0 at step 0 to the peak
    at step W (with W = 0 it is the peak at step 0); then

    - `constant`: the peak;
    - `piecewise`: the peak, divided by 10 from step 0.6·T and again from step 0.9·T;
    - `linear`: a straight line from the peak at W to `end_value` at T;
    - `cosine`: half a cosine from the peak at W to `end_value` at T;
    - `warmup_stable_decay`: the peak, then a straight line over the last `decay_steps` steps.

    After T the last value is kept. With a warm-up the first learning rate is zero.

    Args:
      name: one of the five above.
      peak_value: ≥ 0, the value after the warm-up.
      num_steps: T ≥ 1, the steps of the run, including the warm-up.
      warmup_steps: W in [0, T).
      end_value: ≥ 0, for `linear`, `cosine` and `warmup_stable_decay`.
      decay_steps: for `warmup_stable_decay`, default a tenth of T (at least 1).

    Returns:
      A function from an integer step to a float32 scalar.

    Raises:
      ValueError: unknown name, or a number out of its range.

    Example:
      >>> from sibert_jax.optim import make_schedule
      >>> schedule = make_schedule("linear", peak_value=1.0, num_steps=10, warmup_steps=2)
      >>> [round(float(schedule(step)), 3) for step in (0, 1, 2, 6, 10)]
      [0.0, 0.5, 1.0, 0.5, 0.0]

    References:
      Li et al., https://arxiv.org/abs/2202.00980, section 5 (piecewise; linear for the head).
      Hu et al., *MiniCPM*, https://arxiv.org/abs/2404.06395, section 4 (warmup-stable-decay).
    """
    check_scalar("peak_value", peak_value)
    check_scalar("end_value", end_value)
    num_steps = check_integer("num_steps", num_steps, minimum=1)
    warmup_steps = check_integer("warmup_steps", warmup_steps, minimum=0, below=num_steps)
    if decay_steps is not None:
        decay_steps = check_integer("decay_steps", decay_steps, minimum=1)
    steps = num_steps - warmup_steps
    makers = {
        "constant": lambda: optax.constant_schedule(peak_value),
        "piecewise": lambda: _piecewise(peak_value, num_steps, warmup_steps),
        "linear": lambda: optax.linear_schedule(peak_value, end_value, steps),
        "cosine": lambda: _cosine(peak_value, steps, end_value),
        "warmup_stable_decay": lambda: _warmup_stable_decay(
            peak_value,
            steps,
            max(1, num_steps // 10) if decay_steps is None else decay_steps,
            end_value,
        ),
    }
    if name not in makers:
        raise ValueError(f"unknown schedule {name!r}; the schedules are {', '.join(makers)}.")
    schedule = makers[name]()
    if warmup_steps:
        warmup = optax.linear_schedule(0.0, peak_value, warmup_steps)
        schedule = optax.join_schedules([warmup, schedule], [warmup_steps])

    def float32_schedule(count: jax.typing.ArrayLike) -> jax.Array:
        return jnp.asarray(schedule(count), jnp.float32)

    return float32_schedule
