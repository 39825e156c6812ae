"""Every parameter has one place on the mesh, and the numbers do not depend on it."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sibert_jax.errors import ConfigError
from sibert_jax.model import ARCHS
from sibert_jax.train import build, sharding
from sibert_jax.train.session import check_divisible


def abstract_params(config):
    run = build.run_config(config)
    task = build.bare_task(run)
    batch = task.abstract_batch(1, run.seq_len)
    return jax.eval_shape(task.init, jax.random.key(0), batch)


@pytest.mark.parametrize("nsp", [False, True])
@pytest.mark.parametrize("arch", ARCHS)
def test_every_parameter_matches_exactly_one_rule(config, arch, nsp):
    mesh = sharding.make_mesh(2, 2, 2)
    config.model.arch, config.task.nsp, config.model.num_segments = arch, nsp, 2
    config.model.qkv_bias = True
    for scan, head in itertools.product((False, True), ("untied", "normalized")):
        config.model.scan_layers, config.task.head = scan, head
        config.optim.head.name = "recipe" if head == "normalized" else "lamb"
        params = abstract_params(config)
        sharding.param_shardings(params, mesh)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            spec = sharding.spec_for(sharding.path_name(path), leaf.shape, mesh)
            if leaf.size >= 16 * 16:
                assert any(spec), f"{sharding.path_name(path)} {leaf.shape} lies whole everywhere"


def test_a_parameter_without_a_rule_is_an_error():
    mesh = sharding.make_mesh(8, 1, 1)
    with pytest.raises(ValueError, match="encoder/new/kernel .* matches 0 rules"):
        sharding.spec_for("encoder/new/kernel", (4, 4), mesh)


def test_a_dimension_that_does_not_divide_is_named():
    mesh = sharding.make_mesh(1, 1, 8)
    with pytest.raises(
        ConfigError, match=r"head/output \(511, 16\) .* mesh.tensor=8.* not divide 511; .*: 1, 7\."
    ):
        sharding.spec_for("head/output", (511, 16), mesh)


def test_stacked_layers_keep_their_leading_axis_whole():
    mesh = sharding.make_mesh(2, 2, 2)
    spec = sharding.spec_for("encoder/layers/layer/ffn/up/kernel", (2, 16, 32), mesh)
    assert spec == P(None, "fsdp", "tensor")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 1, 1), "needs 3 devices and 8 are here"),
        ((-1, -1, 1), "-1 in at most one place"),
        ((-1, 3, 1), "8 devices do not divide by 3"),
        ((0, 1, 1), "positive sizes"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        sharding.make_mesh(*sizes)


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


def test_a_copy_of_the_model_that_does_not_fit_in_a_slice_is_refused():
    with pytest.raises(
        ConfigError, match=r"the devices are 2 TPU slices.*make mesh.data a multiple of 2\."
    ):
        sharding.make_mesh(1, 8, 1, [FakeTpu(i) for i in range(8)])


def test_a_batch_that_does_not_divide_is_refused_with_the_numbers(config):
    config.train.global_batch_size = 12
    run = build.run_config(config)
    with pytest.raises(ConfigError, match=r"global_batch_size=12 does not divide by .* 8 × 1 × 1"):
        check_divisible(run, sharding.make_mesh(8, 1, 1))


def test_optimizer_state_lies_where_its_parameter_lies(config):
    mesh = sharding.make_mesh(2, 2, 2)
    run = build.run_config(config)
    params = abstract_params(config)
    mask = {"encoder": jax.tree.map(lambda _: True, params["encoder"])}
    mask["head"] = jax.tree.map(lambda _: False, params["head"])
    recipe = build.build_recipe(run, 0.1, 0.1, mask)
    state = jax.eval_shape(recipe.tx.init, params)
    placed = sharding.state_shardings(state, params, mesh)
    specs = {
        sharding.path_name(path): leaf.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(placed)
    }
    moments = [spec for name, spec in specs.items() if name.endswith("head/output")]
    assert moments
    assert all(spec == P("tensor", "fsdp") for spec in moments)
    # SGD on the encoder keeps no array at all.
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    heads = sum(leaf.size for leaf in jax.tree.leaves(params["head"]))
    assert sum(leaf.size for leaf in arrays) == 2 * heads
