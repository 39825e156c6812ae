"""The protocol with the rivals' process, on a fake one that needs nothing but Python."""

import sys
import textwrap
import types

import numpy as np
import pytest

from benchmarks import pytorch
from benchmarks.models import BERT, SIBERT
from benchmarks.rival import Rival, RivalError
from sibert_jax.train.config import run_config
from sibert_jax.train.resolve import resolve

FAKE = textwrap.dedent(
    """
    import json, sys, time
    for line in sys.stdin:
        request = json.loads(line)
        match request:
            case {"do": "add", "a": a, "b": b}:
                answer = {"sum": a + b}
            case {"do": "die"}:
                sys.exit("no memory left")
            case {"do": "hang"}:
                time.sleep(60)
            case _:
                answer = {"error": "what?"}
        print(json.dumps(answer), flush=True)
    """
)


def fake(script: str = FAKE, **options) -> Rival:
    return Rival([sys.executable, "-c", script], **options)


def test_one_process_answers_until_it_ends():
    """An error there is raised here, and the process continues; its last words are reported."""
    with fake() as rival:
        assert rival.ask("add", a=1, b=2) == {"sum": 3}
        with pytest.raises(RivalError, match="multiply failed there: what"):
            rival.ask("multiply")
        assert rival.ask("add", a=3, b=4) == {"sum": 7}
        with pytest.raises(RivalError, match=r"ended with status 1: no memory left\."):
            rival.ask("die")
        with pytest.raises(RivalError, match="ended with status 1"):
            rival.ask("add", a=1, b=2)


def test_one_that_hangs_is_ended():
    with fake(answer_seconds=0.5) as rival:
        with pytest.raises(RivalError, match=r"hang took more than 0\.5 s\."):
            rival.ask("hang")
        with pytest.raises(RivalError, match="ended with status -9"):
            rival.ask("add", a=1, b=2)


def test_python_that_cannot_serve_is_named():
    with (
        Rival([sys.executable, "-S", "-m", "benchmarks.pytorch_process"]) as rival,
        pytest.raises(RivalError, match="No module named"),
    ):
        rival.ask("versions", threads=1)
    with pytest.raises(RivalError, match=r"nowhere/python cannot be started: No such file"):
        Rival(["nowhere/python"])


def test_ratios_are_to_the_fastest_of_pytorch():
    values = {
        SIBERT: [30.0, 10.0],
        BERT: [20.0, 10.0],
        "matrix product in JAX": [100.0, 200.0],
        "PyTorch, eager": [5.0, 5.0],
        "PyTorch, compiled, masked head": [10.0, 40.0],
        "matrix product in PyTorch": [200.0, 100.0],
    }
    per_token = dict.fromkeys(values, 2.0)
    sibert, _, eager, masked = pytorch.as_rows("mini", values, per_token)
    assert (masked.ratio, sibert.least_ratio, sibert.greatest_ratio) == (1, 0.25, 3)
    assert sibert.more == {pytorch.SHARE: 0.2, pytorch.AS_IT_IS: 4.0}
    assert eager.more[pytorch.SHARE] == 0.05


def test_without_pytorch_ratios_are_to_the_best_of_ours():
    values = {SIBERT: [30.0], BERT: [20.0], "matrix product in JAX": [100.0]}
    sibert, bert = pytorch.as_rows("mini", values, dict.fromkeys(values, 2.0))
    assert (sibert.ratio, bert.ratio) == (1, 20 / 30)
    assert sibert.more == {pytorch.SHARE: 0.6}


class FakeRival:
    """Answers as PyTorch's process would, with one way that cannot be measured."""

    def __init__(self):
        self.asked = []

    def ask(self, do, **arguments):
        self.asked.append((do, arguments))
        match do:
            case "prepare":
                with np.load(arguments["batches"]) as arrays:
                    self.arrays = dict(arrays)
                return {"ways": ["eager"], "failed": {"compiled": "no C++ compiler"}}
            case "steps":
                return {"seconds": 2.0}


def test_pytorch_is_timed_on_the_batches_of_our_run(tiny):
    batches = [{"tokens": np.full((8, 32), index)} for index in range(3)]
    trainer = types.SimpleNamespace(run=run_config(resolve(tiny("bert"))))
    run = types.SimpleNamespace(trainer=trainer, batch=batches.__getitem__, tokens_per_step=8 * 32)
    rival, notes = FakeRival(), []
    timers = pytorch.rival_timers(rival, run, pytorch.Size(16, 2, 2, 8, 3), notes)
    assert list(timers) == ["PyTorch, eager"]
    assert timers["PyTorch, eager"]() == 3 * 8 * 32 / 2.0
    assert notes == ["PyTorch, compiled, is left out: no C++ compiler"]
    assert rival.asked[0][1]["sizes"]["intermediate_size"] == 64
    np.testing.assert_array_equal(rival.arrays["tokens"], [b["tokens"] for b in batches])
