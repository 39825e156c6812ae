"""Collectives are counted as by hand, and the report says what a step needs."""

import functools
import importlib.util
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from sibert_jax.errors import ConfigError
from sibert_jax.tools.collectives import Collective, collectives
from sibert_jax.tools.compile_only import compile_only, described_devices, markdown
from sibert_jax.train import sharding

ROOT = pathlib.Path(__file__).parents[2]
SHAPE = {"data": 2, "fsdp": 4, "tensor": 1}
RING = [(i, (i + 1) % 4) for i in range(4)]


def sum_after_a_loop_of_open_length(x):
    turns = jax.lax.axis_index("fsdp") + 2  # as over the blocks of keys before a block of queries
    return jax.lax.psum(jax.lax.fori_loop(0, turns, lambda i, x: jnp.sin(x), x), "fsdp")


def sums_in_loops(x):
    def inner(carry, _):
        return jax.lax.psum(jnp.sin(carry), "fsdp") * 0.1, None

    def outer(carry, _):
        return jax.lax.scan(inner, jnp.cos(carry), length=3)[0], None

    return jax.lax.scan(outer, x, length=5)[0]


@pytest.mark.parametrize(
    ("fn", "specs", "wanted", "sent_bytes"),
    [
        (sums_in_loops, (P(), P()), ("all-reduce", "fsdp", 4, 256, 15), 15 * 2 * 3 / 4 * 256),
        (sum_after_a_loop_of_open_length, (P(), P()), ("all-reduce", "fsdp", 4, 256, 1),
         2 * 3 / 4 * 256),
        (functools.partial(jax.lax.all_gather, axis_name="data", tiled=True), (P("data"), P()),
         ("all-gather", "data", 2, 256, 1), 128),
        (functools.partial(jax.lax.psum_scatter, axis_name="data", tiled=True), (P(), P("data")),
         ("reduce-scatter", "data", 2, 256, 1), 128),
        (functools.partial(jax.lax.ppermute, axis_name="fsdp", perm=RING), (P("fsdp"), P("fsdp")),
         ("collective-permute", "fsdp", 2, 64, 1), 64),
    ],
    ids=["sums in loops in loops", "open loop", "gather", "scatter", "ring"],
)  # fmt: skip
def test_what_a_program_sends_is_found(fn, specs, wanted, sent_bytes):
    mesh = sharding.make_mesh(*SHAPE.values())
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)
    text = jax.jit(mapped).lower(jax.ShapeDtypeStruct((64,), jnp.float32)).compile().as_text()
    (found,) = collectives(text, SHAPE)
    kind, axis, group_size, size, count = wanted
    assert found == Collective(kind, (axis,), group_size, "f32", size, count)
    assert found.sent_bytes == sent_bytes


TEXT = """HloModule m

%sum (a: f32[], b: f32[]) -> f32[] {{
  ROOT %add = f32[] add(%a, %b)
}}

ENTRY %main (x: bf16[8]) -> bf16[8] {{
  ROOT %r = bf16[8,4]{{1,0:T(8,128)(2,1)S(1)}} all-reduce(%x), channel_id=1, {}, to_apply=%sum
}}
"""


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={}", ("data", "fsdp")),
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", ("data",)),
        ("replica_groups=[2,4]<=[8]", ("fsdp",)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ("data",)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", ("fsdp",)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", ("data",)),
    ],
)
def test_groups_are_read_in_every_notation(groups, axes):
    (found,) = collectives(TEXT.format(groups), SHAPE)
    size = 8 if len(axes) == 2 else SHAPE[axes[0]]
    assert found == Collective("all-reduce", axes, size, "bf16", 64, 1)


def test_groups_in_an_unknown_notation_are_an_error():
    with pytest.raises(ValueError, match="groups of this collective cannot be read"):
        collectives(TEXT.format("replica_groups=new"), SHAPE)


# What TPUs make of a loop of five turns: a gather in three steps, and a sum that is scattered.
TPU_TEXT = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %r = f32[] add(%a, %b)
}

%fused_computation.1 (p: bf16[32,512]) -> (bf16[32,512], bf16[128,512], u32[]) {
  %all-gather.1 = bf16[128,512]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=132, replica_groups=[2,4]<=[8], dimensions={0}, use_global_device_ids=true, backend_config={"flag_configs":[],"async_collective_fusion_config":{"flag_start":"-1","flag_end":"-1"}}
  ROOT %custom-call.1 = (bf16[32,512]{1,0:T(8,128)(2,1)S(1)}, bf16[128,512]{1,0}, u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.2 (p: bf16[32,512], q: f32[8,128], s: u32[]) -> (f32[8], bf16[128,512]) {
  %all-gather.2 = bf16[128,512]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=132, replica_groups=[2,4]<=[8], dimensions={0}, use_global_device_ids=true, backend_config={"flag_configs":[],"async_collective_fusion_config":{"flag_start":"2","flag_end":"8"}}
  %reduce.1 = f32[8]{0:T(8)} reduce(%q, %c), dimensions={1}, to_apply=%add
  ROOT %tuple.1 = (f32[8]{0:T(8)}, bf16[128,512]{1,0}) tuple(%reduce.1, %all-gather.2)
}

%fused_computation.3 (p: bf16[32,512], q: bf16[128,512], s: u32[]) -> bf16[128,512] {
  %all-gather.3 = bf16[128,512]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=132, replica_groups=[2,4]<=[8], dimensions={0}, use_global_device_ids=true, backend_config={"flag_configs":[],"async_collective_fusion_config":{"flag_start":"2","flag_end":"8"}}
  ROOT %custom-call.3 = bf16[128,512]{1,0} custom-call(%p, %q, %all-gather.3, %s), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.8.clone.1 (i: f32[128,2,64], j: f32[512,128]) -> (f32[32,2,64], f32[512,32]) {
  %all-reduce.132 = (f32[128,2,64]{2,0,1:T(8,128)}, /*index=1*/f32[512,128]{0,1:T(8,128)}) all-reduce(%i, %j), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  ROOT %tuple.2 = (f32[32,2,64]{2,0,1:T(8,128)S(1)}, f32[512,32]{0,1}) tuple(%slice.1, %slice.2)
}

%body (t: (s32[], bf16[32,512])) -> (s32[], bf16[32,512]) {
  %async-collective-start = (bf16[32,512]{1,0:T(8,128)(2,1)}, bf16[128,512]{1,0}, u32[]{:S(2)}) fusion(%x), kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%fused_computation.1
  %fusion.2 = (f32[8]{0:T(8)}, bf16[128,512]{1,0}) fusion(%y, %z), kind=kOutput, calls=%async_collective_fusion.2
  %async-collective-done = bf16[128,512]{1,0} fusion(%fusion.2), kind=kCustom, calls=%fused_computation.3
  %fusion.4 = (f32[32,2,64]{2,0,1:T(8,128)S(1)}, f32[512,32]{0,1}) fusion(%g, %h), kind=kCustom, calls=%all-reduce-scatter.8.clone.1, backend_config={"collective_algorithm_config":{"emitter":"AllReduceScatterFusion"}}
  ROOT %tuple.3 = (s32[]{:T(128)}, bf16[32,512]{1,0}) tuple(%i, %x)
}

ENTRY %main (x: bf16[32,512]) -> bf16[32,512] {
  %while.1 = (s32[]{:T(128)}, bf16[32,512]{1,0}) while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %get-tuple-element.1 = bf16[32,512]{1,0} get-tuple-element(%while.1), index=1
}
"""  # noqa: E501


def test_a_gather_in_steps_and_a_sliced_sum_count_once():
    scattered, gathered = collectives(TPU_TEXT, SHAPE)
    size = 4 * (128 * 2 * 64 + 512 * 128)
    assert scattered == Collective("reduce-scatter", ("fsdp",), 4, "f32", size, 5)
    assert gathered == Collective("all-gather", ("fsdp",), 4, "bf16", 2 * 128 * 512, 5)
    assert gathered.sent_bytes == 5 * 3 / 4 * 2 * 128 * 512


# What GPUs make of a sum that other work hides, and of a scatter in a computation of its own.
ASYNC_TEXT = """HloModule m

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%async_computation (p: f32[64]) -> f32[16] {
  ROOT %reduce-scatter.1 = f32[16]{0} reduce-scatter(%p), channel_id=2, replica_groups=[2,4]<=[8], dimensions={0}, to_apply=%sum
}

ENTRY %main (x: f32[64]) -> f32[16] {
  %all-reduce-start = f32[64]{0} all-reduce-start(%x), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%sum
  %all-reduce-done = f32[64]{0} all-reduce-done(%all-reduce-start)
  %reduce-scatter-start = ((f32[64]{0}), f32[16]{0}) async-start(%all-reduce-done), calls=%async_computation
  %reduce-scatter-update = ((f32[64]{0}), f32[16]{0}) async-update(%reduce-scatter-start), calls=%async_computation
  ROOT %reduce-scatter-done = f32[16]{0} async-done(%reduce-scatter-update), calls=%async_computation
}
"""  # noqa: E501


def test_what_starts_and_is_awaited_later_counts_once():
    summed, scattered = collectives(ASYNC_TEXT, SHAPE)
    assert summed == Collective("all-reduce", ("data", "fsdp"), 8, "f32", 256, 1)
    assert scattered == Collective("reduce-scatter", ("fsdp",), 4, "f32", 256, 1)


def bare(config, **mesh):
    config.optim.eta_lambda, config.optim.learning_rate = 0.0, 0.1
    config.mesh.update(mesh)
    return config


def test_the_report_adds_up_on_copies_of_the_model(config):
    config.model.depth, config.model.scan_layers = 1, False  # compiles faster
    config.optim.head.name = "adamw"
    report = compile_only(bare(config), jax.devices())
    params = report.param_bytes
    # The gradient of every parameter is summed over the copies; besides it only scalars are.
    summed = [found for found in report.collectives if found.bytes > 64]
    assert {(found.kind, found.axes) for found in summed} == {("all-reduce", ("data",))}
    total = sum(found.bytes * found.count for found in summed)
    assert params <= total < 1.05 * params
    assert report.temporary_bytes > 0
    assert "| total |" in markdown(report)


@pytest.mark.slow
def test_with_fsdp_what_is_sent_does_not_grow_with_the_batch(config):
    whole = compile_only(bare(config, data=1), jax.devices()[:1]).param_bytes
    report = compile_only(bare(config, data=1, fsdp=8), jax.devices())
    assert whole / 8 <= report.param_bytes < whole / 8 + 4096  # biases lie whole
    config.train.global_batch_size *= 16
    larger = compile_only(config, jax.devices())
    assert larger.examples == 16 * report.examples
    assert larger.sent_bytes < 1.1 * report.sent_bytes


def test_a_tpu_topology_compiles_or_names_the_package(config, monkeypatch):
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, "1")  # put back at the end
    if importlib.util.find_spec("libtpu"):
        report = compile_only(bare(config, data=-1), described_devices("v5e:2x4"))
        assert report.platform == "TPU v5 lite"
    else:
        with pytest.raises(ConfigError, match=r"v5e:2x4 needs .* pip install -e '\.\[train,tpu\]'"):
            described_devices("v5e:2x4")


def test_a_device_count_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"--compile_only=257 must lie between 1 and 256\."):
        described_devices("257")


@pytest.mark.parametrize(
    ("mesh", "vocab_size", "num_devices", "message"),
    [
        ({"fsdp": 4}, 512, 6, r"^mesh=.*6 devices are not divisible by 4\."),
        ({"data": 2, "tensor": 4}, 1022, 8, r"mesh.tensor=4.* not divide 1022; .*: 1, 2, 7\."),
    ],
)
def test_a_mesh_that_does_not_fit_is_named(config, mesh, vocab_size, num_devices, message):
    config.model.vocab_size = vocab_size
    with pytest.raises(ConfigError, match=message):
        compile_only(bare(config, **mesh), jax.devices()[:num_devices])


@pytest.mark.slow
def test_the_command_of_the_page_runs():
    page = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    block, for_tpus = re.findall(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    words = shlex.split(block.replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "sibert_jax.main"]
    # The same flags but for the devices: the test above has those.
    assert "--compile_only=v5e:2x4" in shlex.split(for_tpus.replace("\\\n", " "))
    tiny = {"vocab_size": 512, "width": 24, "ffn_width": 32, "depth": 2}
    words = [sys.executable, *words[1:], *(f"--config.model.{k}={v}" for k, v in tiny.items())]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Step of 128 examples on 8 devices (data 8 × fsdp 1 × tensor 1)")
    assert "| all-reduce | data | f32 |" in done.stdout
    headings = [line for line in done.stdout.splitlines() if line.startswith(("| per", "| coll"))]
    assert all(line in page for line in headings)
