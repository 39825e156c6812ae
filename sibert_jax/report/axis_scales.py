"""Axis limits and ticks that fit the measurements; predictions extend them only so far."""

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

REACH = 3.0  # a dashed line, or a twentieth of a solid one, widens the limits by at most this
SMALLEST_LOG_RANGE = 4.0  # so that at least one of the ticks 1, 2, 5, 10 lies inside
LINEAR_UP_TO_RATIO = 10.0
EARLY = 0.02  # fraction of a line; the loss before that may be cut off
LEAST_LOSS_RANGE = 1.0  # nats
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _positive(axis: Axes, dashed: bool) -> list[np.ndarray]:
    """Returns the positive values of the solid or the dashed lines."""
    lines = [np.asarray(line.get_ydata()) for line in axis.lines if line.is_dashed() == dashed]
    lines = [values[values > 0] for values in lines]
    return [values for values in lines if values.size]


def _range(axis: Axes) -> tuple[float, float] | None:
    """Returns the lowest and highest positive value to show; None if there is none.

    A schedule that ends at 0 lowers rotation by decades in its last steps, which may be cut off.
    """
    predicted = _positive(axis, dashed=True)
    measured = _positive(axis, dashed=False) or predicted
    if not measured:
        return None
    low = min(max(line.min(), np.percentile(line, 5) / REACH) for line in measured)
    high = max(line.max() for line in measured)
    if predicted:
        low = min(low, max(min(line.min() for line in predicted), low / REACH))
        high = max(high, min(max(line.max() for line in predicted), high * REACH))
    return float(low), float(high)


def _plain(value: float, _: int) -> str:
    """Formats a tick: 0.02, 500, 2·10⁻⁵; no axis mixes forms within its usual range."""
    if value == 0 or 1e-3 <= value < 1e5:
        return f"{value:g}"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    mantissa = value / 10.0**exponent
    power = "10" + str(exponent).translate(SUPERSCRIPTS)
    return power if abs(mantissa - 1) < 1e-6 else f"{mantissa:g}·{power}"


def logarithmic(axis: Axes) -> None:
    """Makes the axis logarithmic, with ticks in plain numbers."""
    limits = _range(axis)
    if limits is None:
        return
    low, high = limits
    if high / low < SMALLEST_LOG_RANGE:
        center = np.sqrt(low * high)
        low, high = center / SMALLEST_LOG_RANGE**0.5, center * SMALLEST_LOG_RANGE**0.5
    axis.set_yscale("log")
    axis.set_ylim(low / 1.15, high * 1.15)
    decades = np.log10(high / low)
    subs = (1, 2, 5) if decades <= 2.5 else (1,)
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=12))
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(_plain))
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def linear_or_logarithmic(axis: Axes) -> None:
    """Makes the axis logarithmic if values span more than a factor of 10, otherwise linear."""
    limits = _range(axis)
    if limits is None:
        return
    low, high = limits
    if high / low > LINEAR_UP_TO_RATIO:
        logarithmic(axis)
        return
    margin = 0.06 * (high - low) or 0.1 * high
    axis.set_ylim(low - margin, high + margin)
    axis.yaxis.set_major_locator(ticker.MaxNLocator(nbins=6))


def from_zero(axis: Axes) -> None:
    """Makes the axis linear, from 0 to slightly above the highest value."""
    axis.set_ylim(0, 1.1 * max((line.max() for line in _positive(axis, False)), default=1.0))


def percent_logarithmic_above_one(axis: Axes) -> None:
    """Makes the axis linear from 0 to 1 % and logarithmic above, to show 0.2 % and 100 %."""
    highest = max((line.max() for line in _positive(axis, False)), default=0.0)
    axis.set_yscale("symlog", linthresh=1, linscale=0.5)
    axis.set_ylim(0, max(3.5, 1.25 * highest))
    axis.yaxis.set_major_locator(ticker.FixedLocator([0, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    axis.yaxis.set_major_formatter(ticker.FuncFormatter(_plain))
    axis.yaxis.set_minor_locator(ticker.NullLocator())


def cut_high_losses(axis: Axes) -> bool:
    """Keep first steps and diverged runs from flattening the rest; return whether any is cut.

    The axis ends at the highest loss after 2 % of a run, unless twice that range suffices.
    """
    lines = [np.asarray(line.get_ydata()) for line in axis.lines if len(line.get_ydata())]
    if not lines:
        return False
    lowest = min(line.min() for line in lines)
    highest = axis.dataLim.ymax  # with the shade
    early = max(line[int(EARLY * len(line))] for line in lines)
    span = max(early - lowest, LEAST_LOSS_RANGE)
    if highest <= lowest + 2 * span:
        return False
    axis.set_ylim(lowest - 0.05 * span, lowest + 1.1 * span)
    return True


def steps(axis: Axes, last_steps: list[int]) -> str:
    """Set scale and ticks of the step axis; return its label.

    A run more than 50 times shorter than another would be a dot on a linear axis.
    """
    longest, shortest = max(last_steps), min(last_steps)
    if longest > 50 * max(shortest, 1):
        linear_to = max(1.0, shortest / 20)
        axis.set_xscale("symlog", linthresh=linear_to)
        axis.set_xlim(0, longest * 1.5)
        powers = 10.0 ** np.arange(np.ceil(np.log10(linear_to)), np.floor(np.log10(longest)) + 1)
        axis.xaxis.set_major_locator(ticker.FixedLocator([0, *powers]))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        label = "step (log)"
    else:
        axis.set_xlim(0, max(longest, 1) * 1.03)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6, integer=True))
        label = "step"
    if longest < 10_000:
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    else:
        axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    return label
