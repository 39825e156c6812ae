"""A run that is killed with kill -9 again and again ends with the bits of the run that was not.

The full test, alone:  python -m pytest tests/train/chaos_test.py -m slow -s
"""

import collections
import functools
import json
import random
import re
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from tests.train.lives import Run, at_line, at_phase
from tests.train.metrics_rows import rows

pytestmark = pytest.mark.slow
# How long after its beginning a phase is hit, in seconds; writing of a checkpoint continues in the
# background after its phase.
DELAYS = {"start": 0.5, "compile": 1.0, "restore": 0.2, "input": 0.05, "step": 0.3}
DELAYS |= {"evaluation": 0.1, "checkpoint": 0.25}


@pytest.fixture
def chaotic(config, tmp_path):
    """Many steps, checkpoints and evaluations in little time, dropout and a vocabulary to learn."""
    config.mesh.data = 1
    config.model.dropout = 0.1
    config.data.cache_dir = str(tmp_path / "cache")
    config.train.num_steps = 20
    config.train.log_every_steps = 3
    config.train.eval_every_steps = 15
    config.checkpoint.keep = 2
    return config


def assert_same_end(broken: Run, straight: Run):
    jax.tree.map(np.testing.assert_array_equal, broken.state(), straight.state())
    assert rows(broken.workdir) == rows(straight.workdir)


def kill_once(run: Run, config, phase: str, dice: random.Random, killed) -> bool:
    """Starts a run and kills it in a phase; False if it came to its end before."""
    if phase == "restore" and not run.steps_saved():
        phase = "checkpoint"
    if phase == "start" and dice.random() < 0.7:
        shutil.rmtree(config.data.cache_dir, ignore_errors=True)  # tokenize again
    delay = dice.uniform(0.0, DELAYS[phase])
    life = run.start()
    if life.reach(phase):
        time.sleep(delay)
    hit = life.phase
    if life.kill():
        killed[hit] += 1
        return True
    assert life.wait() == 0, run.said()
    return False


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills_of_each_seed_change_nothing(chaotic, tmp_path, seed):
    chaotic.train.num_steps, chaotic.seed = 300, seed
    dice = random.Random(seed)
    waiting = collections.deque(dice.choice(list(DELAYS)) for _ in range(100))
    straight = Run(chaotic, tmp_path / "straight")
    assert straight.finish() == 0, straight.said()
    killed = collections.Counter()  # by the phase that was hit
    while waiting:
        broken = Run(chaotic, tmp_path / f"broken-{len(waiting)}")
        while waiting and kill_once(broken, chaotic, waiting[0], dice, killed):
            waiting.popleft()
            print(f"seed {seed}: {killed.total()} kills, {dict(killed)}", flush=True)
        assert broken.finish() == 0, broken.said()
        assert_same_end(broken, straight)
    assert killed.total() == 100
    assert min(killed[phase] for phase in ("start", "compile", "restore", "checkpoint")) > 0


def test_kills_and_signals_in_every_phase_change_nothing(chaotic, tmp_path):
    straight, broken = Run(chaotic, tmp_path / "straight"), Run(chaotic, tmp_path / "broken")

    # While a vocabulary is learned there is nothing to save yet.
    learning = functools.partial(at_line, "learning", signal.SIGTERM, signal.SIGTERM)
    assert broken.finish(learning) == 0, broken.said()
    assert "SIGTERM: stopped before the first step; run again" in broken.said()
    assert "Traceback" not in broken.said()
    assert not broken.workdir.exists()

    assert straight.finish() == 0, straight.said()
    killed = functools.partial(at_phase, "compile", 1, signal.SIGKILL)
    assert broken.finish(killed) == -signal.SIGKILL

    several = (signal.SIGTERM, signal.SIGTERM, signal.SIGINT)  # in the checkpoint of step 5
    stopped = functools.partial(at_phase, "checkpoint", 1, *several)
    assert broken.finish(stopped) == 0, broken.said()
    assert "SIGTERM: saved step 6; run again to resume" in broken.said()
    assert broken.steps_saved() == [5, 6]

    held = broken.start(functools.partial(at_phase, "restore", 1, signal.SIGSTOP))
    assert held.reach("restore")
    assert broken.finish() == 2  # another process in the same workdir
    assert re.search(rf"in use by another run \(pid {held.process.pid} on ", broken.said())
    assert held.kill()

    assert broken.finish() == 0, broken.said()
    assert_same_end(broken, straight)
    sums = json.loads((broken.workdir / "goodput.json").read_text())
    assert (sums["starts"], sums["steps"]) == (4, chaotic.train.num_steps)  # not the first
