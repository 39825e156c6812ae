"""What 2022 became: fixed angles, orthogonalized and normalized directions, other schedules."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments import arms, claims

INNER = {
    "SGD": "sgd",
    "momentum": "momentum",
    "Adam": "adam",
    "Muon": "muon",
    "orthogonalized gradient": "orthogonalized",
    "SinkGD": "sinkgd",
    "SWAN": "swan",
    "rows of unit rms": "unit_rms",
    "factored second moment": "factored_rms",
}
# √(2ηλ) of the recipe's best rate at each length lies in the middle.
ANGLES = {"minutes": (0.12,), "hours": (0.06, 0.12, 0.24), "gpu": (0.024,)}
ETA_LAMBDA = {"minutes": 8e-3, "hours": 8e-3, "gpu": 3e-4}
SCHEDULES = ("cosine", "linear", "constant", "warmup_stable_decay", "piecewise")


def points(scale: str) -> list[dict]:
    """Each direction on the sphere at each angle; the stateless recipe with each schedule."""
    directions = [
        arms.arm_point(
            "SIBERT, SGD on spheres", angle, arms.small(scale), optim__options=f"inner={inner}"
        )
        | {"arm": f"sphere: {name}"}
        for name, inner in INNER.items()
        for angle in ANGLES[scale]
    ]
    schedules = [
        arms.arm_point(
            "SIBERT, orthogonalized SGD",
            ETA_LAMBDA[scale],
            arms.small(scale),
            optim__schedule=schedule,
        )
        | {"arm": f"orthogonalized SGD, {schedule.replace('_', '-')}"}
        for schedule in SCHEDULES
    ]
    return directions + schedules


def best(lines: Sequence[dict]) -> dict[str, list[dict]]:
    """The run of each arm with the least loss."""
    found = {}
    for arm, runs in claims.by_arm(lines).items():
        known = [run for run in runs if arms.final_loss(run) is not None]
        found[arm] = sorted(known, key=arms.final_loss)[:1] or runs[:1]
    return found


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """Final losses and curves at the best angle."""
    losses, curves = figure.subplots(1, 2)
    arms.final_losses(losses, best(lines))
    arms.draw_curves(curves, best(lines))


def table(lines: Sequence[dict]) -> str:
    """Final losses at the best angle."""
    return arms.loss_table(best(lines), settings=("optim.learning_rate",))
