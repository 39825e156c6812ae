"""Runs whose attention is a kernel: lowered for TPUs and GPUs."""

import re

import jax
import pytest

from tests.train.started import bare_trainer

FOR_GPUS = pytest.mark.skipif(
    jax.__version_info__ >= (0, 11), reason="JAX 0.11 lowers for GPUs only on one"
)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param((1, 1, 1), id="one device"),
        pytest.param((2, 2, 2), id="eight", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("backend", "platform"), [("tpu", "tpu"), pytest.param("gpu", "cuda", marks=FOR_GPUS)]
)
def test_the_step_is_lowered_with_both_passes(config, monkeypatch, sizes, backend, platform):
    config.model.attention_impl = "pallas"
    trainer = bare_trainer(config, sizes)  # which proves the invariance
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    module = trainer.step.lower(32, platforms=(platform,)).as_text()
    assert len(re.findall(r'name = "relu_attention', module)) == 3
