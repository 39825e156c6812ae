"""Collectives are counted as by hand, and the report says what a step needs."""

import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from sibert_jax.train import build, sharding
from sibert_jax.train.collectives import Collective, collectives
from sibert_jax.train.compile_only import compile_only, markdown
from sibert_jax.train.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
SHAPE = {"data": 2, "fsdp": 4, "tensor": 1}


def found_in(fn, in_spec, out_spec, size=64) -> list[Collective]:
    mesh = sharding.make_mesh(*SHAPE.values())
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=in_spec, out_specs=out_spec, check_vma=False)
    x = jax.ShapeDtypeStruct((size,), jnp.float32)
    return collectives(jax.jit(mapped).lower(x).compile().as_text(), SHAPE)


def test_a_sum_inside_a_loop_counts_once_a_turn():
    def fn(x):
        def body(carry, _):
            return jax.lax.psum(jnp.sin(carry), "fsdp") * 0.1, None

        return jax.lax.scan(body, x, length=7)[0]

    (found,) = found_in(fn, P(), P())
    assert found == Collective("all-reduce", ("fsdp",), 4, "f32", 64 * 4, 7)
    assert found.sent_bytes == 7 * 2 * 3 / 4 * 256


def test_loops_inside_loops_multiply():
    def inner(carry, _):
        return jax.lax.psum(jnp.sin(carry), ("data", "fsdp")) * 0.1, None

    def outer(carry, _):
        return jax.lax.scan(inner, jnp.cos(carry), length=3)[0], None

    (found,) = found_in(lambda x: jax.lax.scan(outer, x, length=5)[0], P(), P())
    assert (found.count, found.axes, found.group_size) == (15, ("data", "fsdp"), 8)


@pytest.mark.parametrize(
    ("fn", "in_spec", "out_spec", "kind", "size"),
    [
        (functools.partial(jax.lax.all_gather, axis_name="data", tiled=True),
         P("data"), P(), "all-gather", 256),
        (functools.partial(jax.lax.psum_scatter, axis_name="data", tiled=True),
         P(), P("data"), "reduce-scatter", 256),
    ],
)  # fmt: skip
def test_gather_and_scatter_send_the_share_of_the_others(fn, in_spec, out_spec, kind, size):
    (found,) = found_in(fn, in_spec, out_spec)
    assert found == Collective(kind, ("data",), 2, "f32", size, 1)
    assert found.sent_bytes == size / 2


def test_a_ring_sends_its_array_to_the_neighbour():
    ring = [(i, (i + 1) % 4) for i in range(4)]
    (found,) = found_in(lambda x: jax.lax.ppermute(x, "fsdp", ring), P("fsdp"), P("fsdp"))
    assert (found.kind, found.axes, found.sent_bytes) == ("collective-permute", ("fsdp",), 64)


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


def bare(config, **mesh):
    config.optim.eta_lambda, config.optim.learning_rate = 0.0, 0.1
    config.mesh.update(mesh)
    return config


def test_the_report_adds_up_on_copies_of_the_model(config):
    report = compile_only(bare(config), jax.devices())
    params = report.param_bytes
    # The gradient of every parameter is summed over the copies; besides it only scalars are.
    summed = [found for found in report.collectives if found.bytes > 64]
    assert {(found.kind, found.axes) for found in summed} == {("all-reduce", ("data",))}
    total = sum(found.bytes * found.count for found in summed)
    assert params <= total < 1.05 * params
    assert report.temporary_bytes > 0
    assert "| all of them |" in markdown(report)


def test_where_only_parameters_are_split_what_is_sent_does_not_grow_with_the_batch(config):
    whole = sharding_free_bytes(config)
    report = compile_only(bare(config, data=1, fsdp=8), jax.devices())
    assert whole / 8 <= report.param_bytes < whole / 8 + 4096  # biases lie whole
    config.train.global_batch_size *= 16
    larger = compile_only(config, jax.devices())
    assert larger.examples == 16 * report.examples
    assert larger.sent_bytes < 1.1 * report.sent_bytes


def sharding_free_bytes(config) -> int:
    run = build.run_config(bare(config))
    task = build.bare_task(run)
    params = jax.eval_shape(task.init, jax.random.key(0), task.abstract_batch(1, run.seq_len))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def command(*arguments: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "sibert_jax.main", *arguments]
    return subprocess.run(
        words, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )


def test_a_mesh_that_does_not_fit_ends_with_a_sentence():
    done = command("--config=configs/demo.py", "--compile_only=6", "--config.mesh.fsdp=4")
    assert done.returncode == 2
    assert re.fullmatch(r"error: mesh=.*6 devices do not divide by 4\.\n", done.stderr)


def test_a_device_count_out_of_range_is_refused():
    done = command("--config=configs/demo.py", "--compile_only=257")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --compile_only=257 must lie between 1 and 256.\n",
    )


def test_too_wide_a_split_of_the_vocabulary_says_which_sizes_work(config):
    config.model.vocab_size = 511 * 2
    with pytest.raises(ConfigError, match=r"mesh.tensor=4.* not divide 1022; .*: 1, 2, 7\."):
        compile_only(bare(config, data=2, tensor=4), jax.devices())


def test_the_command_of_the_page_runs():
    page = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    words = shlex.split(block.replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "sibert_jax.main"]
    tiny = {"vocab_size": 512, "width": 24, "ffn_width": 32, "depth": 2}
    done = command(*words[3:], *(f"--config.model.{key}={value}" for key, value in tiny.items()))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Step of 128 examples on 8 devices (data 8 × fsdp 1 × tensor 1)")
    assert "| all-reduce | data | f32 |" in done.stdout
    headings = [line for line in done.stdout.splitlines() if line.startswith(("| per", "| coll"))]
    assert all(line in page for line in headings)
