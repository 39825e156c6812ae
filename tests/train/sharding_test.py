"""Every parameter has one place on the mesh, and the numbers do not depend on it."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sibert_jax.errors import ConfigError
from sibert_jax.model import ARCHS
from sibert_jax.tasks.registry import MODULES, task_type
from sibert_jax.train import sharding
from sibert_jax.train.config import default_config, run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import bare_task, check_divisible
from sibert_jax.trees import path_name
from tests.train.started import bare_trainer

HEAD = task_type("pretraining").sharding


def abstract_params(config):
    run = run_config(resolve(config))
    task = bare_task(run)
    batch = task.abstract_batch(1, run.data.seq_len)
    return jax.eval_shape(task.init, jax.random.key(0), batch)


def assert_each_has_one_rule(params, rules):
    mesh = sharding.make_mesh(2, 2, 2)
    sharding.param_shardings(params, mesh, rules)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        spec = sharding.spec_for(path_name(path), leaf.shape, mesh, (*sharding.ENCODER, *rules))
        if leaf.size >= 16 * 16:
            assert any(spec), f"{path_name(path)} {leaf.shape} lies whole everywhere"


@pytest.mark.parametrize("arch", [name for name, arch in ARCHS.items() if not arch.is_causal])
def test_every_parameter_matches_exactly_one_rule(config, arch):
    config.model.update(arch=arch, num_segments=2, qkv_bias=True)
    for scan, nsp, head in ((False, False, "invariant"), (True, True, "untied")):
        config.model.scan_layers, config.task.nsp, config.task.head = scan, nsp, head
        config.optim.head.name = "same" if head == "invariant" else "lamb"
        assert_each_has_one_rule(abstract_params(config), HEAD)
    with pytest.raises(ValueError, match="encoder/new/kernel .* matches 0 sharding rules"):
        sharding.spec_for("encoder/new/kernel", (4, 4), sharding.make_mesh(8, 1, 1), HEAD)


@pytest.mark.parametrize("task", MODULES)
def test_every_task_has_rules_for_its_head(task):
    config = default_config(task)
    if "labels" in config.task:  # else found in the training file
        config.task.labels, config.data.path = ("A", "B"), "train.csv"
    assert_each_has_one_rule(abstract_params(config), task_type(task).sharding)


def test_a_dimension_that_does_not_divide_is_named():
    mesh = sharding.make_mesh(1, 1, 8)
    with pytest.raises(
        ConfigError, match=r"head/output \(511, 16\) .* mesh.tensor=8.* not divide 511; .*: 1, 7\."
    ):
        sharding.spec_for("head/output", (511, 16), mesh, HEAD)


@dataclasses.dataclass(frozen=True)
class FakeTpu:
    """One of four chips in a slice, two of which are a host's."""

    id: int
    platform: str = "tpu"
    device_kind: str = "fake"
    core_on_chip: int = 0

    @property
    def coords(self) -> tuple[int, int, int]:
        return self.id % 2, self.id % 4 // 2, 0

    @property
    def process_index(self) -> int:
        return self.id // 2

    @property
    def slice_index(self) -> int:
        return self.id // 4 ^ 1  # slices need not be in the order of the processes


@pytest.mark.parametrize("sizes", [(2, 4, 1), (4, 2, 1), (-1, 1, 2), (8, 1, 1)])
def test_only_copies_of_the_model_go_over_slices_of_tpus(sizes):
    mesh = sharding.make_mesh(*sizes, [FakeTpu(i) for i in (3, 1, 7, 0, 4, 6, 2, 5)])
    assert sorted(device.id for device in mesh.devices.flat) == list(range(8))
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert (slices == slices[:, :1, :1]).all()
    assert slices[:, 0, 0].tolist() == sorted(slices[:, 0, 0].tolist())


@pytest.mark.parametrize(
    ("sizes", "slices", "message"),
    [
        ((3, 1, 1), None, "needs 3 devices, but 8 are available"),
        ((-1, -1, 1), None, "-1 in at most one place"),
        ((-1, 3, 1), None, "8 devices are not divisible by 3"),
        ((0, 1, 1), None, "positive sizes"),
        ((1, 8, 1), [FakeTpu(i) for i in range(8)], r"2 TPU slices.*mesh.data a multiple of 2\."),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes, slices, message):
    with pytest.raises(ConfigError, match=message):
        sharding.make_mesh(*sizes, slices)


def test_a_batch_that_does_not_divide_is_refused_with_the_numbers(config):
    config.train.global_batch_size = 12
    run = run_config(resolve(config))
    with pytest.raises(
        ConfigError, match=r"global_batch_size=12 must be a multiple of .* 8 × 1 × 1"
    ):
        check_divisible(run, sharding.make_mesh(8, 1, 1))


def test_optimizer_state_lies_where_its_parameter_lies(config):
    state = bare_trainer(config, (2, 2, 2)).abstract_state
    specs = {
        path_name(path): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
    }
    moments = {spec for name, spec in specs.items() if name.endswith("head/output")}
    assert moments == {P("tensor", "fsdp")}
    up = state.params["encoder"]["layers"]["layer"]["ffn"]["up"]["kernel"]
    assert up.sharding.spec == P(None, "fsdp", "tensor")  # of stacked layers
    # SGD on the encoder keeps no array at all.
    arrays = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    heads = sum(leaf.size for leaf in jax.tree.leaves(state.params["head"]))
    assert sum(leaf.size for leaf in arrays) == 2 * heads
