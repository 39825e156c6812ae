"""Config keys under `distributed`: how the processes of a run find each other."""

import dataclasses

from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Keys under `distributed`; all may change when a run is resumed."""

    start: str = key(
        "single", "how the processes find each other; single: there is only one; auto: from a TPU "
        "pod, SLURM or Open MPI; explicit: from coordinator_address, num_processes and process_id",
        choices=("single", "auto", "explicit"), may_change=True,
    )  # fmt: skip
    coordinator_address: str = key(
        "", "host:port on which process 0 listens for the others",
        may_change=True, per_process=True,
    )  # fmt: skip
    num_processes: int = key(1, "number of processes of the run", low=1, may_change=True)
    process_id: int = key(
        0, "number of this process, from 0", low=0, may_change=True, per_process=True
    )
    start_timeout_secs: int = key(
        300, "seconds to wait at startup for all processes to connect", low=1, may_change=True
    )
    heartbeat_secs: int = key(
        20, "seconds without a heartbeat after which a process counts as lost", low=2,
        may_change=True,
    )  # fmt: skip

    def __post_init__(self):
        check("distributed", self)
        if self.process_id >= self.num_processes:
            raise ConfigError(
                f"distributed.process_id={self.process_id} must be at least 0 and below "
                f"distributed.num_processes={self.num_processes}."
            )
        host, _, port = self.coordinator_address.rpartition(":")
        explicit = self.start == "explicit"
        if explicit and not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise ConfigError(
                f"distributed.coordinator_address={self.coordinator_address!r} must be host:port, "
                "where process 0 can be reached by the others."
            )
        if not explicit and (self.num_processes > 1 or self.coordinator_address):
            raise ConfigError(
                f"distributed.start={self.start!r} takes no coordinator_address, num_processes or "
                'process_id; set it to "explicit", or leave them out.'
            )
