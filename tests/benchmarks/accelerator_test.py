"""The command for accelerators: its parts, what it keeps, its report; all of it on a CPU."""

import json
import math

import numpy as np
import pytest

from benchmarks import attention as forms
from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import checks, report, timings
from benchmarks.accelerator.sizes import TINY, meshes
from benchmarks.rival import RivalError

MACHINE = {"device": "1 × GPU", "commit": "c0", "jax": "0.10", "jaxlib": "0.10"}
FITS = 16


@pytest.mark.parametrize(("num_devices", "count"), [(1, 1), (4, 6), (6, 9), (8, 10)])
def test_every_mesh_of_the_devices_is_tried_once(num_devices, count):
    found = meshes(num_devices)
    assert len(set(found)) == len(found) == count
    assert {math.prod(shape) for shape in found} == {num_devices}
    assert found[0] == (num_devices, 1, 1)


class FakeRival:
    """Answers as process.py would, on a device whose memory holds FITS sequences."""

    def __init__(self, log: list, flags: list[str], machine: dict):
        self.log, self.flags, self.machine = log, flags, machine
        log.append(("start", *flags))

    def ask(self, do, **arguments):
        if do == "machine":
            return {"platform": "gpu", "num_devices": 2, "machine": self.machine}
        self.log.append((do, *arguments.values()))
        if do == "step":
            raise RivalError("step failed there: no such unit")
        if do == "batch" and arguments["batch_size"] > FITS:
            raise RivalError("batch failed there: RESOURCE_EXHAUSTED: Out of memory")
        if do.startswith("check"):
            return {"checks": [checks.compared(f"{do} {arguments['dtype']}", 0.5, 1.0)._asdict()]}
        name = str(next(iter(arguments.values())))
        return {"group": do, "values": {name: [4.0, 2.0]}, "more": {}, "notes": ["a note"]}

    def __exit__(self, *_):
        self.log.append(("end",))


def run(folder, *words, machine=MACHINE) -> list:
    log = []
    given = [f"--out={folder}", *words]
    assert command.main(given, start=lambda flags: FakeRival(log, flags, machine)) == 0
    return log


def test_batches_are_doubled_until_one_fails_each_in_its_own_process(tmp_path):
    log = run(tmp_path)
    tries = [entry for entry in log if entry[0] == "batch"]
    assert tries == [("batch", size, False) for size in (8, 16, 32)]
    for entry in tries:
        where = log.index(entry)
        assert (log[where - 1], log[where + 1]) == (("start",), ("end",))


def test_only_checks_on_a_gpu_are_deterministic(tmp_path):
    flags = ()
    for what, *rest in run(tmp_path):
        if what == "start":
            flags = rest
        elif what != "end":
            assert (flags == ["--deterministic"]) == what.startswith("check"), what


def test_a_part_that_fails_is_reported_and_the_others_go_on(tmp_path):
    run(tmp_path)
    page = (tmp_path / "accelerator.md").read_text()
    for words in (
        "# 1 × GPU",
        "commit c0",
        "Checks: 4 passed.",
        "| check_network bfloat16 | 0.5 | 1 | passed |",
        "Parts that failed: training step, length 128; training step, length 512.",
        "training step, length 128: step failed there: no such unit",
        "| batch | 16 | 3.00 (2.00–4.00) | 1.000 (1.000–1.000) |",
        "batch 32: batch failed there: RESOURCE_EXHAUSTED: Out of memory",
        "| mesh | [1, 2, 1] |",
    ):
        assert words in page
    assert "Not done" not in page
    assert (tmp_path / "accelerator.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_continues_and_fresh_begins_anew(tmp_path, capsys):
    first = run(tmp_path)
    path = tmp_path / "accelerator.json"
    kept = json.loads(path.read_text())
    del kept["parts"]["mesh 1 × 1 × 2"]
    path.write_text(json.dumps(kept))
    asked = [entry for entry in run(tmp_path) if entry[0] not in ("start", "end")]
    assert asked == [("mesh", [1, 1, 2], False)]
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, machine=MACHINE | {"commit": "c1"})
    assert "was made with commit=c0, and this is c1" in capsys.readouterr().err
    assert run(tmp_path, "--fresh", machine=MACHINE | {"commit": "c1"}) == first


def test_nothing_is_started_after_the_given_minutes(tmp_path):
    assert run(tmp_path, "--minutes=0") == [("start",), ("end",)]
    page = (tmp_path / "accelerator.md").read_text()
    assert "Not done, as the time was over: network, float32; network, bfloat16;" in page
    assert len(run(tmp_path)) > 10
    assert "Not done" not in (tmp_path / "accelerator.md").read_text()


@pytest.mark.parametrize(
    ("found", "status"), [(0.0, "passed"), (1e-9, "failed"), (math.nan, "failed")]
)
def test_bitwise_means_no_difference_at_all(found, status):
    check = checks.compared("same", found, 0.0)
    assert check.status == status
    parts = {"network": {"do": "check_network", "checks": [check._asdict()]}}
    assert report.check_failed(parts) == (status == "failed")


def test_difference_is_the_greatest_of_any_array():
    x = np.float32([1.0, -4.0])
    assert checks.difference((x, [1.0]), (x, [1.0])) == 0
    assert checks.difference((x, [1.5]), (x, [1.0])) == 0.5
    assert checks.difference((np.nextafter(x, 0, dtype=x.dtype), [1.0]), (x, [1.0])) > 0
    assert math.isnan(checks.difference((x, [math.nan]), (x, [1.0])))


def test_a_wrong_implementation_of_attention_is_found(monkeypatch):
    right = forms.relu

    def relu(impl, causal=False):
        wrong = impl == "blockwise" and causal
        return lambda q, k, v, mask: right(impl, causal)(q, k, v * (1.1 if wrong else 1), mask)

    monkeypatch.setattr(forms, "relu", relu)
    found = {check.name: check for check in checks.attention(TINY, "float32")}
    assert found[f"{forms.BLOCKWISE}, float32"].status == checks.PASSED
    assert found[f"{forms.BLOCKWISE}, causal, float32"].status == checks.FAILED
    assert found[f"{forms.KERNELS}, float32"].status == checks.UNAVAILABLE


@pytest.mark.slow
def test_a_mesh_of_eight_devices_is_timed():
    found = timings.mesh(TINY, (2, 2, 2))
    assert list(found["values"]) == ["2 × 2 × 2"]
    assert found["group"].endswith("batch 32")


@pytest.mark.slow
def test_all_of_it_is_rehearsed_on_a_cpu(tmp_path, capsys):
    assert command.main([f"--out={tmp_path}"]) == 0
    kept = json.loads((tmp_path / "accelerator.json").read_text())
    assert not [part["error"] for part in kept["parts"].values() if "error" in part]
    results = report.results(kept["parts"])
    assert all(result.rows for result in results.values())
    statuses = [
        check["status"] for part in kept["parts"].values() for check in part.get("checks", [])
    ]
    assert set(statuses) == {checks.PASSED, checks.UNAVAILABLE}
    assert report.markdown(kept) in capsys.readouterr().out
    assert (tmp_path / "accelerator.png").exists()
