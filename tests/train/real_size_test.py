"""The paper's base size takes a step on this machine."""

import pathlib

import jax
import numpy as np
import pytest

from sibert_jax.train import build, sharding
from sibert_jax.train.session import Session

ROOT = pathlib.Path(__file__).parents[2]


class NoCheckpoints:
    def latest_step(self):
        return None


@pytest.mark.slow
def test_one_step_of_base_at_batch_8_and_length_128(config, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from sibert_jax.configs import sibert_base

    base = sibert_base.get_config()
    base.data = config.data
    base.data.seq_len = 128
    base.model.vocab_size = 30_522
    base.train.global_batch_size = 8
    run = build.run_config(base)
    session = Session(
        run, sharding.make_mesh(1, 1, 1, jax.devices()[:1]), *build.load_task(run, progress=print)
    )
    state = session.start(NoCheckpoints())
    before = jax.device_get(state.params["encoder"]["stem"]["kernel"])
    state, report = session.step(state, session.batch(0))
    assert int(state.step) == 1
    assert int(report.health.bad_step) == -1
    assert float(report.window.sums["loss"]) == pytest.approx(np.log(30_522) + np.log(2), rel=0.05)
    after = jax.device_get(state.params["encoder"]["stem"]["kernel"])
    assert np.any(before != after)
