"""The paper's base size takes a step on this machine."""

import jax
import numpy as np
import pytest

from sibert_jax.configs import sibert_base
from tests.train.started import Started


@pytest.mark.slow
def test_one_step_of_base_at_batch_8_and_length_128(config):
    base = sibert_base.get_config()
    base.data = config.data
    base.data.seq_len = 128
    base.model.vocab_size = 30_522
    base.train.global_batch_size = 8
    run = Started(base)
    before = jax.device_get(run.params["encoder"]["stem"]["kernel"])
    state, report = run.steps([0])
    assert int(state.step) == 1
    assert int(report.health.bad_step) == -1
    assert float(report.window.sums["loss"]) == pytest.approx(np.log(30_522) + np.log(2), rel=0.05)
    after = jax.device_get(state.params["encoder"]["stem"]["kernel"])
    assert np.any(before != after)
