"""Starts the processes of one run over loopback, and cleans up after them."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]

# The command itself, with steps slow enough for a signal to come in between.
SCRIPT = """
import sys, time
from sibert_jax import main
from sibert_jax.data import PretrainingBatches

batch = PretrainingBatches.batch
def slow(self, *where):
    time.sleep(0.05)
    return batch(self, *where)
PretrainingBatches.batch = slow
sys.exit(main.main())
"""
CONFIG = """
import json
import ml_collections

def get_config():
    return ml_collections.ConfigDict(json.load(open({!r})))
"""


class Group:
    """The processes of one run, each with devices of its own; kills them at the end."""

    def __init__(self, config, directory: pathlib.Path):
        self.directory = directory
        self.messages: list[pathlib.Path] = []
        self.processes: list[subprocess.Popen] = []
        self._count = 0
        self._config = directory.parent / f"{directory.name}.py"
        values = self._config.with_suffix(".json")
        values.write_text(json.dumps(config.to_dict()))
        self._config.write_text(CONFIG.format(str(values)))

    def start(
        self,
        count: int,
        devices: int,
        overrides: dict[int, list[str]] | None = None,
        only: tuple[int, ...] = (),
        environments: dict[int, dict[str, str]] | None = None,
        folders: dict[int, pathlib.Path] | None = None,
    ):
        """Starts `count` processes, or `only` some.

        `overrides` are more arguments, `folders` working directories of single ones; those with
        `environments` of a cluster's launcher find each other by these.
        """
        port = free_port()
        self.processes, self.messages = [], []
        for index in only or range(count):
            self._count += 1
            messages = self.directory.parent / f"{self.directory.name}.{self._count}.log"
            arguments = [f"--config={self._config}", f"--workdir={self.directory}"]
            if count > 1 and environments:
                arguments += ["--config.distributed.start=auto"]
            elif count > 1:
                arguments += [
                    "--config.distributed.start=explicit",
                    f"--config.distributed.coordinator_address=127.0.0.1:{port}",
                    f"--config.distributed.num_processes={count}",
                    f"--config.distributed.process_id={index}",
                ]
            arguments += (overrides or {}).get(index, [])
            environment = os.environ | {
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles in half the time
                "PYTHONPATH": str(ROOT),
            }
            if count > 2:
                # Only process 0 finds its programs in the cache on CPU: it would then wait for
                # the others to compile, for longer than the 30 s that gloo allows.
                environment["JAX_ENABLE_COMPILATION_CACHE"] = "0"
            environment |= (environments or {}).get(index, {})
            with messages.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, "-c", SCRIPT, *arguments],
                    cwd=(folders or {}).get(index, ROOT),
                    env=environment,
                    stderr=file,
                    stdout=file,
                )
            self.processes.append(process)
            self.messages.append(messages)
        return self

    def wait(self) -> list[int]:
        """Exit statuses, once all have ended; a process that hangs fails the test."""
        return [process.wait(timeout=300) for process in self.processes]

    def said(self, index: int) -> str:
        """What a process has written."""
        return self.messages[index].read_text()

    def all_said(self) -> str:
        return "\n".join(f"--- {i}\n{self.said(i)}" for i in range(len(self.processes)))

    def wait_for_checkpoint(self, step: int):
        """Returns as soon as the checkpoint of a step is there."""
        until = time.monotonic() + 300
        while not (self.directory / "checkpoints" / str(step)).is_dir():
            ended = [process for process in self.processes if process.poll() is not None]
            assert not ended, self.all_said()
            assert time.monotonic() < until, self.all_said()
            time.sleep(0.02)

    def close(self):
        """Kills what is left."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
