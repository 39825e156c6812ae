"""The table of optimizers that a config can name, one line each.

A factory gets `learning_rate` and, if it has these parameters, `weight_decay`, `mask`,
`clip_factor` and `blocks` from the config; its other parameters can be set in `optim.options`. A
factory without `weight_decay` is preceded by optax's `add_decayed_weights`, a direction is followed
by it.
"""

import ast
import difflib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from optax import contrib

from sibert_jax import optim
from sibert_jax.errors import ConfigError


class Entry(NamedTuple):
    """A row of the table.

    Attributes:
      make: the factory, or its name in `sibert_jax.optim`, which is then imported on use.
      follows_theory: whether the equilibrium of SGD with weight decay applies (arXiv 2202.00980,
        section 4).
      is_direction: whether the factory gives only the direction of a step, without learning rate.
      measures_rate: whether it measures η itself; its learning rate is then a factor with peak 1.
    """

    make: Callable[..., optax.GradientTransformation] | str
    follows_theory: bool = False
    is_direction: bool = False
    measures_rate: bool = False

    @property
    def factory(self) -> Callable[..., optax.GradientTransformation]:
        """The resolved factory."""
        return getattr(optim, self.make) if isinstance(self.make, str) else self.make


def _muon():
    """Returns Muon's direction; optax's `scale_by_muon` rejects vectors."""
    momentum = optax.trace(0.95, nesterov=True)
    return optax.chain(momentum, optim.scale_by_orthogonalization(axes=_muon_dimensions))


def _row_clipped_sgd(learning_rate, row_clip: float = 0.2):
    return optax.chain(optax.sgd(learning_rate), _clip_rows(row_clip))


def _clip_rows(max_ratio: float):
    return optim.clip_by_relative_unit_norm(max_ratio, axes=_matrix_axes)


def _direction(inner: str) -> optax.GradientTransformation:
    if inner not in DIRECTIONS:
        raise ValueError(f"inner={inner!r} is unknown; choose one of {list(DIRECTIONS)}")
    return DIRECTIONS[inner]()


def _equilibrium_sgd(
    learning_rate, weight_decay, inner: str = "sgd", memory: int | None = 50,
    measure_steps: int = 20, clip_factor=None, blocks=None,
):  # fmt: skip
    sgd = optim.equilibrium_sgd(
        learning_rate, weight_decay, clip_factor=clip_factor, memory=memory,
        measure_steps=measure_steps, blocks=blocks,
    )  # fmt: skip
    return sgd if inner == "sgd" else optax.chain(_direction(inner), sgd)


def _hyperball(learning_rate, inner: str = "sgd", row_clip: float = math.inf, blocks=None):
    descent = optax.chain(_direction(inner), optax.scale(-1.0))
    on_sphere = optim.hyperball(descent, learning_rate, blocks=blocks)
    return on_sphere if math.isinf(row_clip) else optax.chain(on_sphere, _clip_rows(row_clip))


def _matrix_axes(params, tables: bool = True):
    """Returns the input and output axes of kernels (also stacked, or with heads) and tables.

    Other leaves, and tables if not `tables`, get None: they are not treated as matrices.
    """
    one = contrib.MuonDimensionNumbers

    def axes(path, leaf):
        names = [str(entry.key) for entry in path]
        last = leaf.ndim - 1
        if names[-1] == "kernel":
            if names[-2] in ("query", "key", "value"):  # D, H, K
                return one(last - 2, (last - 1, last))
            if names[-3:-1] == ["attention", "out"]:  # H, K, D
                return one((last - 2, last - 1), last)
            return one(last - 1, last)
        is_table = leaf.ndim == 2 and not names[-1].endswith(("bias", "scale"))
        return one(0, 1) if tables and is_table else None

    return jax.tree_util.tree_map_with_path(axes, params)


_muon_dimensions = functools.partial(_matrix_axes, tables=False)


@functools.wraps(optax.adafactor)
def _adafactor(**options):
    return optax.chain(optax.adafactor(None, **options), optax.scale(-1.0))


@functools.wraps(optax.lamb)
def _lamb(learning_rate, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0, mask=None):
    """LAMB in which steps of biases and gains are not scaled by their norm.

    As its authors do (You et al. 2020). An output bias initialized with log frequencies has a norm
    that would multiply its steps by hundreds.
    """
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root),
        optax.add_decayed_weights(weight_decay, mask),
        optax.masked(optax.scale_by_trust_ratio(), True if mask is None else mask),
        optax.scale_by_learning_rate(learning_rate),
    )


# Stateless directions, except factored_rms, which holds one number per row and per column.
_STATELESS = {
    "unit_rms": functools.partial(optim.scale_by_unit_rms, axes=_matrix_axes),
    "sinkgd": functools.partial(optim.scale_by_sinkhorn, axes=_matrix_axes),
    "swan": functools.partial(optim.scale_by_whitening, axes=_matrix_axes),
    "orthogonalized": functools.partial(optim.scale_by_orthogonalization, axes=_muon_dimensions),
    "factored_rms": functools.partial(optax.scale_by_factored_rms, min_dim_size_to_factor=2),
}

# Inner transforms of hyperball and equilibrium_sgd; they point uphill, like every scale_by_*.
DIRECTIONS = {
    "sgd": optax.identity,
    "momentum": functools.partial(optax.trace, decay=0.9),
    "adam": optax.scale_by_adam,
    "lion": optax.scale_by_lion,
    "muon": _muon,
    "psgd_kron": lambda: optim.scale_by_psgd_kron(),
    **_STATELESS,
}

TABLE = {
    "scale_invariant_sgd": Entry(optim.scale_invariant_sgd, follows_theory=True),
    "equilibrium_sgd": Entry(_equilibrium_sgd, follows_theory=True, measures_rate=True),
    "orthogonalized_sgd": Entry(
        functools.partial(_equilibrium_sgd, inner="orthogonalized"),
        follows_theory=True,
        measures_rate=True,
    ),
    "sgd_sai": Entry(optim.sgd_sai),
    "hyperball": Entry(_hyperball),
    "psgd_kron": Entry("scale_by_psgd_kron", is_direction=True),
    "psgd_low_rank": Entry("scale_by_psgd_low_rank", is_direction=True),
    "psgd_matrix_free": Entry("scale_by_psgd_matrix_free", is_direction=True),
    **{name: Entry(make, is_direction=True) for name, make in _STATELESS.items()},
    "row_clipped_sgd": Entry(_row_clipped_sgd),
    "sgd": Entry(optax.sgd),
    "momentum": Entry(functools.partial(optax.sgd, momentum=0.9)),
    "sign_sgd": Entry(optax.sign_sgd),
    "adamw": Entry(optax.adamw),
    "lamb": Entry(_lamb),
    "lars": Entry(optax.lars),
    "lion": Entry(optax.lion),
    "adafactor": Entry(_adafactor, is_direction=True),
    "muon": Entry(functools.partial(contrib.muon, muon_weight_dimension_numbers=_muon_dimensions)),
    "ademamix": Entry(contrib.ademamix),
    "schedule_free_sgd": Entry(contrib.schedule_free_sgd),
    "schedule_free_adamw": Entry(contrib.schedule_free_adamw),
}

# Factory parameters that are config keys or set by the program.
_NOT_OPTIONS = {
    "learning_rate", "weight_decay", "mask", "weight_decay_mask", "trust_ratio_mask",
    "weight_decay_rate", "clip_factor", "blocks", "axis_name", "axes", "warmup_steps",
    "muon_weight_dimension_numbers",
}  # fmt: skip


def parse_options(section: str, name: str, text: str) -> dict[str, Any]:
    """Parses options such as "b2=0.98, nesterov=True" and checks them against the factory.

    Raises:
      ConfigError: the text cannot be parsed, or the optimizer has no such option.
    """
    key = f"{section}.options={text!r}"
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        if call.args:
            raise ValueError("there is no name before '='")
        given = {keyword.arg: _value(keyword.value) for keyword in call.keywords}
        if len(given) < len(call.keywords):
            raise ValueError("a name occurs twice")
    except (SyntaxError, ValueError) as error:
        message = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigError(
            f'{key} cannot be read ({message}); write it as "momentum=0.9, nesterov=True".'
        ) from None
    known = [name for name in _parameters(TABLE[name].factory) if name not in _NOT_OPTIONS]
    for option in given:
        if option not in known:
            nearest = difflib.get_close_matches(str(option), known, n=1)
            hint = (
                f"did you mean {nearest[0]!r}?"
                if nearest
                else f"it has {', '.join(known) or 'none'}."
            )
            raise ConfigError(f"{key}: {name} has no option {option!r}; {hint}")
    return given


def _value(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _parameters(make: Callable) -> tuple[str, ...]:
    return tuple(inspect.signature(make).parameters)


def make_optimizer(
    name: str,
    options: dict[str, Any],
    learning_rate: optax.Schedule,
    weight_decay: float,
    *,
    mask: Callable[[Any], Any],
    clip_factor: float = math.inf,
    blocks: Any = None,
) -> optax.GradientTransformation:
    """Builds the optimizer of one group of leaves.

    Args:
      name: a key of TABLE.
      options: options of its factory.
      learning_rate: η_t.
      weight_decay: λ.
      mask: params -> True on the leaves with weight decay and, in LAMB and LARS, with steps
        proportional to their norm; used if the factory has such a parameter.
      clip_factor: C of the relative clip, used if the factory has one; inf: no clip.
      blocks: labels of the leaves that share a norm, used if the factory has such a parameter.
    """
    entry = TABLE[name]
    parameters = _parameters(entry.factory)
    if name == "hyperball" and weight_decay:
        raise ConfigError(
            f"weight_decay={weight_decay} with the optimizer hyperball, which keeps every norm "
            "constant; set it to 0."
        )
    given = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "mask": mask,
        "weight_decay_mask": mask,
        "trust_ratio_mask": mask,
        "clip_factor": None if math.isinf(clip_factor) else clip_factor,
        "blocks": blocks,
    }
    if entry.is_direction:
        return optax.chain(
            entry.factory(**options),
            optax.add_decayed_weights(weight_decay, mask),
            optax.scale_by_learning_rate(learning_rate),
        )
    tx = entry.factory(**{k: value for k, value in given.items() if k in parameters}, **options)
    if "weight_decay" in parameters or not weight_decay:
        return tx
    return optax.chain(optax.add_decayed_weights(weight_decay, mask), tx)


def has_average(opt_state: Any) -> bool:
    """Tells whether an optimizer is schedule-free for any leaf."""
    return any(map(_is_schedule_free, jax.tree.leaves(opt_state, is_leaf=_is_schedule_free)))


def averaged_params(opt_state: Any, params: Any) -> Any:
    """Returns the parameters to evaluate: the average under a schedule-free optimizer."""

    def average(param, z, state):
        if isinstance(z, optax.MaskedNode):
            return param
        return contrib.schedule_free_eval_params(state._replace(z=z), param)

    for state in jax.tree.leaves(opt_state, is_leaf=_is_schedule_free):
        if _is_schedule_free(state):
            params = jax.tree.map(
                functools.partial(average, state=state),
                params,
                state.z,
                is_leaf=lambda node: isinstance(node, optax.MaskedNode),
            )
    return params


def _is_schedule_free(node: Any) -> bool:
    return isinstance(node, contrib.ScheduleFreeState)
