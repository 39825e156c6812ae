"""`--profile` traces the steps that it names, once, and nothing else of the run changes."""

import gzip
import json
import re
import shutil

import jax
import numpy as np
import pytest

from sibert_jax.errors import ConfigError
from sibert_jax.runtime.profiling import ProfiledSteps, Profiler
from sibert_jax.train.run import train

TRACES = "profile/plugins/profile/*/*"


@pytest.mark.parametrize(
    "text", ["10", "10:", ":10", "-1:5", "5:5", "6:5", "1:2:3", "a:b", "1.0:2"]
)
def test_what_is_no_pair_of_steps_is_refused_in_a_sentence(text):
    with pytest.raises(ConfigError, match=rf"--profile={text} must be START:STOP, two whole"):
        ProfiledSteps.parse(text)


def test_steps_beyond_the_last_are_refused_at_once(config, tmp_path):
    with pytest.raises(ConfigError, match=r"--profile=3:13 ends after the last .* run, 12\."):
        train(config, tmp_path / "run", jax.devices()[:1], profile=ProfiledSteps(3, 13))
    assert not (tmp_path / "run").exists()


def steps_of(directory) -> list[int]:
    """The steps that a trace marks, as the viewers show them."""
    (path,) = directory.glob(f"{TRACES}.trace.json.gz")
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    marks = [event for event in events if event.get("name") == "train"]
    return sorted({int(mark["args"]["step_num"]) for mark in marks})


@pytest.mark.slow
def test_a_trace_changes_nothing_of_a_resumed_run(config, tmp_path):
    config.train.num_steps, config.checkpoint.every_steps = 6, 2
    config.train.eval_every_steps = 0
    device = jax.devices()[:1]
    plain = train(config, tmp_path, device)
    for step in (4, 6):
        shutil.rmtree(tmp_path / f"checkpoints/{step}")
    traced = train(config, tmp_path, device, profile=ProfiledSteps(3, 5))
    jax.tree.map(np.testing.assert_array_equal, plain.params, traced.params)
    assert steps_of(tmp_path) == [4, 5]


def test_a_run_that_resumes_amid_its_steps_traces_the_rest(tmp_path):
    said = []
    with Profiler(ProfiledSteps(2, 6), tmp_path / "profile", 4, said.append) as profiler:
        assert profiler.is_due(4)
        profiler.turn()
        assert [profiler.is_due(done) for done in (4, 5, 6)] == [False, False, True]
    assert list(tmp_path.glob(f"{TRACES}.xplane.pb"))  # the run ends before its last step
    assert re.fullmatch("traced steps 2:6 into .*profile", said[0])
    assert not any(profiler.is_due(done) for done in range(20))


def test_steps_that_are_over_are_told_and_not_traced(tmp_path):
    said = []
    with Profiler(ProfiledSteps(2, 6), tmp_path / "profile", 6, said.append) as profiler:
        assert not any(profiler.is_due(done) for done in range(20))
    assert said == ["--profile=2:6: the run is at step 6 already; nothing is traced"]


def test_a_trace_that_cannot_be_started_is_told_and_stops_nothing(tmp_path):
    said = []
    jax.profiler.start_trace(str(tmp_path / "other"))
    try:
        with Profiler(ProfiledSteps(0, 9), tmp_path / "profile", 0, said.append) as profiler:
            profiler.turn()
            assert not profiler.is_due(9)
    finally:
        jax.profiler.stop_trace()
    assert re.fullmatch(r"warning: --profile=0:9: no trace is written \(.+\)", said[0])
