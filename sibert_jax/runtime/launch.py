"""Starts the processes of a run together, and ends them together."""

import contextlib
import socket
import sys
import threading
import traceback
from collections.abc import Iterator

import jax

from sibert_jax.errors import (
    EXPECTED,
    FAULT,
    TRAINING_FAILED,
    WRONG_INPUT,
    ConfigError,
    DataError,
    FaultError,
    TrainingError,
)
from sibert_jax.runtime import coordination
from sibert_jax.runtime.coordination import Notes
from sibert_jax.runtime.processes import (
    SINGLE_PROCESS,
    MultiProcessGroup,
    ProcessGroup,
    exit_now,
    one_line,
    print_error,
)
from sibert_jax.runtime.settings import DistributedConfig
from sibert_jax.runtime.signals import Stopped


def exit_status(error: BaseException) -> int:
    """Returns the exit status of a process that ends with this error."""
    if isinstance(error, Stopped):
        return 0
    if isinstance(error, TrainingError):
        return TRAINING_FAILED
    if isinstance(error, FaultError) or not isinstance(error, EXPECTED):
        return FAULT
    return WRONG_INPUT


@contextlib.contextmanager
def join(settings: DistributedConfig) -> Iterator[ProcessGroup]:
    """Starts the processes of a run together, and ends them together.

    Must run before any device is used. If the body raises in one of several processes, each prints
    one line with the error and exits with a nonzero status; no exception is raised.

    Args:
      settings: how to start; `start="single"` does nothing.

    Raises:
      ConfigError: the settings are invalid; with a single process, exceptions of the body
        propagate.
    """
    if settings.start == "single":
        yield SINGLE_PROCESS
        return
    group = MultiProcessGroup(settings, _start(settings))
    try:
        yield group
        group.leave()
    except BaseException as error:
        _end_all(group, error)


def _end_all(group: MultiProcessGroup, error: BaseException) -> None:
    reason = str(error)
    if not isinstance(error, EXPECTED):
        reason = f"{type(error).__name__}: {one_line(error)}"
    print_error(group, reason)
    if not isinstance(error, (ConfigError, DataError, TrainingError, KeyboardInterrupt)):
        # Perhaps a collective failed because a process is gone (JAX may raise anything then). Which
        # one will soon be known and reported instead of a traceback.
        group.await_verdict()
    if not isinstance(error, (*EXPECTED, KeyboardInterrupt)):
        traceback.print_exc()
    group.fail(reason)
    exit_now(exit_status(error))


def _start(settings: DistributedConfig) -> Notes:
    """Calls `jax.distributed.initialize`; its aborts and endless waits become one-line errors."""
    explicit = settings.start == "explicit"
    arguments, hosts = {}, []
    if explicit:
        arguments = {
            "coordinator_address": settings.coordinator_address,
            "num_processes": settings.num_processes,
            "process_id": settings.process_id,
            "cluster_detection_method": "deactivate",
        }
        hosts.append(settings.coordinator_address.rpartition(":")[0].strip("[]"))
        if settings.process_id == 0:
            _check_port(settings.coordinator_address)
    # JAX's own service would intercept SIGTERM, which signals.py and stop_step.py handle.
    jax.config.update("jax_enable_preemption_service", False)
    started = threading.Event()
    watch = threading.Thread(target=_give_up, args=(settings, started), daemon=True)
    watch.start()
    try:
        jax.distributed.initialize(
            **arguments,
            # JAX aborts the process at these timeouts; ours are shorter and explain why.
            initialization_timeout=2 * settings.start_timeout_secs,
            heartbeat_timeout_seconds=3 * settings.heartbeat_secs,
            shutdown_timeout_seconds=settings.heartbeat_secs,
        )
        return coordination.connect(hosts, timeout_secs=2 * settings.heartbeat_secs)
    except coordination.Unreachable as error:
        raise ConfigError(f"{error}; allow connections between the machines of the run.") from None
    except (RuntimeError, ValueError) as error:
        hint = (
            "" if explicit else ' Outside of a TPU pod, SLURM and Open MPI, set it to "explicit".'
        )
        raise ConfigError(
            f"distributed.start={settings.start!r} does not work here: {one_line(error)}{hint}"
        ) from None
    finally:
        started.set()


def _check_port(address: str) -> None:
    """Raises ConfigError for a port in use, where JAX would crash or share it with another run."""
    try:
        socket.create_server(("", int(address.rpartition(":")[2]))).close()
    except OSError as error:
        raise ConfigError(
            f"distributed.coordinator_address={address!r}: process 0 cannot listen on this port "
            f"({error.strerror}); choose another one, in every process."
        ) from None


def _give_up(settings: DistributedConfig, started: threading.Event) -> None:
    if started.wait(settings.start_timeout_secs):
        return
    within = f"within {settings.start_timeout_secs} s (distributed.start_timeout_secs)"
    sentence = f"not all processes started {within}; run the same command in each."
    if settings.start == "explicit":
        sentence = (
            f"not all of the {settings.num_processes} processes started {within}; run the same "
            "command in each, with a different distributed.process_id, counted from 0."
        )
        where = settings.coordinator_address
        host, _, port = where.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            sentence = (
                f"the coordinator at {where!r}, where process 0 listens, cannot be reached "
                f"{within}: {error}."
            )
    if not started.is_set():
        print(f"error: {sentence}", file=sys.stderr)
        exit_now(WRONG_INPUT)
