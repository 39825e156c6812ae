"""Runs whose attention is a kernel: lowered for TPUs and GPUs, refused elsewhere."""

import re

import jax
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.tools.compile_only import compile_only
from sibert_jax.train import build, sharding
from sibert_jax.train.session import Session

FOR_GPUS = pytest.mark.skipif(
    jax.__version_info__ >= (0, 11), reason="JAX 0.11 lowers for GPUs only on one"
)


@pytest.fixture
def with_kernels(config):
    config.model.attention_impl = "pallas"
    return config


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=["one device", "eight"])
@pytest.mark.parametrize(
    ("backend", "platform"), [("tpu", "tpu"), pytest.param("gpu", "cuda", marks=FOR_GPUS)]
)
def test_the_step_is_lowered_with_both_passes(with_kernels, monkeypatch, sizes, backend, platform):
    run = build.run_config(with_kernels)
    mesh = sharding.make_mesh(*sizes, jax.devices()[: sizes[0] * sizes[1] * sizes[2]])
    session = Session(run, mesh, build.bare_task(run), None)  # which proves the invariance
    step = sharding.on_mesh(session._make_step(1.0, 0.1).__call__, mesh)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    traced = jax.jit(step).trace(session.abstract_state, session.abstract_batch())
    module = traced.lower(lowering_platforms=(platform,)).as_text()
    assert len(re.findall(r'name = "relu_attention', module)) == 3


def test_on_other_devices_it_is_refused_before_anything_is_written(
    with_kernels, train_one, tmp_path
):
    sentence = (
        r'model\.attention_impl="pallas" is a kernel for TPUs and GPUs; the devices here are cpu'
    )
    with pytest.raises(ConfigError, match=sentence):
        train_one(with_kernels, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=sentence):
        compile_only(with_kernels, jax.devices()[:1])
