"""The modules of a model as separate functions, with their inputs and outputs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sibert_jax.interop.per_layer import unflatten
from sibert_jax.trees import nest


class Traffic(NamedTuple):
    """The inputs and outputs of one call of a module on one batch.

    Attributes:
      inputs: arrays among its arguments.
      outputs: floating-point arrays among its results.
    """

    inputs: list[jax.Array]
    outputs: list[jax.Array]


@dataclasses.dataclass(frozen=True)
class Call:
    """A module with its non-array arguments: a pure function, hashable as a key of `jax.jit`.

    Attributes:
      module: the module, without a parent.
      structure: tree definition of (arguments, keyword arguments).
      constants: the leaves of these, ARRAY in place of arrays.
    """

    module: nn.Module
    structure: Any
    constants: tuple

    def __call__(self, params: Mapping[str, jax.Array], inputs: Sequence[jax.Array]) -> list:
        """Returns the outputs; parameters are named as inside the module."""
        arrays = iter(inputs)
        leaves = [next(arrays) if x is ARRAY else x for x in self.constants]
        args, kwargs = jax.tree.unflatten(self.structure, leaves)
        return _floats(self.module.apply({"params": nest(dict(params))}, *args, **kwargs))


ARRAY = "an array"


class Blocks:
    """Records the traffic of some modules while the model runs.

    Args:
      module: encoder and head, with the sizes in `cfg`.
      names: names of the modules, from `matrices.block_of`.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]):
        cfg = dataclasses.replace(module.cfg, scan_layers=False, remat=False)
        self._module = module.clone(cfg=cfg)
        self._names = {tuple(n.replace("/layers/", "/layers/layer_").split("/")): n for n in names}
        self.calls: dict[str, Call] = {}  # in forward order, once the model has run
        self.traffic = jax.jit(self._traffic)

    def _traffic(self, flat: Mapping[str, jax.Array], batch: Mapping) -> dict[str, Traffic]:
        """Runs the model and returns the inputs and outputs of each block.

        Args:
          flat: parameters, named as in interop/per_layer.
          batch: a batch for the model.
        """
        found: dict[str, Traffic] = {}

        def watch(run, args, kwargs, context):
            outputs = run(*args, **kwargs)
            name = self._names.get(context.module.path)
            if name is None or context.method_name != "__call__":
                return outputs
            leaves, structure = jax.tree.flatten((args, kwargs))
            constants = tuple(ARRAY if _is_array(leaf) else leaf for leaf in leaves)
            module = context.module.clone(parent=None, name=None)
            self.calls[name] = Call(module, structure, constants)
            found[name] = Traffic([leaf for leaf in leaves if _is_array(leaf)], _floats(outputs))
            return outputs

        with nn.intercept_methods(watch):
            self._module.apply({"params": unflatten(dict(flat), scan_layers=False)}, batch)
        return found


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _floats(outputs: Any) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(outputs) if jnp.issubdtype(x.dtype, jnp.floating)]
