"""A run that is killed with kill -9 again and again ends with the bits of the run that was not.

The full test, alone:  python -m pytest tests/train/chaos_test.py -m slow -s
"""

import collections
import functools
import json
import random
import re
import signal
import time

import pytest

from tests.train.lives import Run, at_line, at_phase, forget_cache

# How long after its beginning a phase is hit, in seconds; writing of a checkpoint goes on in the
# background after its phase.
DELAYS = {
    "start": 0.5,
    "compile": 1.0,
    "restore": 0.2,
    "input": 0.05,
    "step": 0.3,
    "evaluation": 0.1,
    "checkpoint": 0.25,
}


@pytest.fixture
def chaotic(config, tmp_path):
    """Many steps, checkpoints and evaluations in little time, dropout and a vocabulary to learn."""
    config.mesh.data = 1
    config.model.dropout = 0.1
    config.data.cache_dir = str(tmp_path / "cache")
    config.train.num_steps = 20
    config.train.log_every_steps = 3
    config.train.eval_every_steps = 15
    config.checkpoint.every_steps = 5
    config.checkpoint.keep = 2
    return config


def kill_often(config, directory, seed: int, phases: list[str], say) -> collections.Counter:
    """Kills a run once in each of the phases given, and compares its end with a run left alone.

    Returns:
      How many kills hit in which phase; a phase that did not come before the end is not counted.
    """
    dice = random.Random(seed)
    config.seed = seed
    straight = Run(config, directory / "straight")
    assert straight.finish() == 0, straight.said()
    killed = collections.Counter()
    waiting = collections.deque(phases)
    for attempt in range(len(phases)):
        broken = Run(config, directory / f"broken-{attempt}")
        while waiting and kill_once(broken, config, waiting[0], dice, killed):
            waiting.popleft()
            say(f"{killed.total()} kills, {len(waiting)} to come: {dict(killed)}")
        assert broken.finish() == 0, broken.said()
        assert broken.digest() == straight.digest()
        assert broken.rows() == straight.rows()
        if not waiting:
            break
    return killed


def kill_once(run: Run, config, phase: str, dice: random.Random, killed) -> bool:
    """Starts a run and kills it in a phase; False if it came to its end before."""
    if phase == "restore" and not run.steps_saved():
        phase = "checkpoint"
    if phase == "start" and dice.random() < 0.7:
        forget_cache(config)
    delay = dice.uniform(0.0, DELAYS[phase])
    life = run.start()
    if life.reach(lambda: life.phase == phase):
        time.sleep(delay)
    hit = life.phase
    if life.kill():
        killed[hit] += 1
        return True
    assert life.wait() == 0, run.said()
    return False


def test_kills_and_signals_in_every_phase_change_nothing(chaotic, tmp_path):
    straight, broken = Run(chaotic, tmp_path / "straight"), Run(chaotic, tmp_path / "broken")

    # While a vocabulary is learnt there is nothing to save yet.
    learning = functools.partial(at_line, "learning", signal.SIGTERM, signal.SIGTERM)
    assert broken.finish(learning) == 0, broken.said()
    assert "SIGTERM: stopped before the first step; run again" in broken.said()
    assert "Traceback" not in broken.said()
    assert not broken.workdir.exists()

    assert straight.finish() == 0, straight.said()
    assert broken.finish(functools.partial(at_phase, "compile", signal.SIGKILL)) == -signal.SIGKILL

    several = (signal.SIGTERM, signal.SIGTERM, signal.SIGINT)  # in the checkpoint of step 5
    assert broken.finish(functools.partial(at_phase, "checkpoint", *several)) == 0, broken.said()
    assert "SIGTERM: saved step 6; run again to resume" in broken.said()
    assert broken.steps_saved() == [5, 6]

    held = broken.start(functools.partial(at_phase, "restore", signal.SIGSTOP))
    assert held.reach(lambda: held.phase == "restore")
    assert broken.finish() == 2  # another process in the same workdir
    assert re.search(rf"in use by another run \(pid {held.process.pid} on ", broken.said())
    assert held.kill()

    assert broken.finish() == 0, broken.said()
    assert broken.digest() == straight.digest()
    assert broken.rows() == straight.rows()
    assert "goodput " in broken.said()
    sums = json.loads((broken.workdir / "goodput.json").read_text())
    assert (sums["starts"], sums["steps"]) == (4, chaotic.train.num_steps)  # not the first


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills_of_each_seed_change_nothing(chaotic, tmp_path, seed, capsys):
    chaotic.train.num_steps = 300
    dice = random.Random(seed)
    phases = [dice.choice(list(DELAYS)) for _ in range(100)]

    def say(text):
        with capsys.disabled():
            print(f"seed {seed}: {text}", flush=True)

    killed = kill_often(chaotic, tmp_path, seed, phases, say)
    say(f"kills by phase: {dict(killed)}")
    assert killed.total() == 100
    assert min(killed[phase] for phase in ("start", "compile", "restore", "checkpoint")) > 0
