"""How the processes of a run find each other."""

import dataclasses

from sibert_jax.errors import ConfigError
from sibert_jax.keys import at_least, one_of


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Keys under `distributed`."""

    start: str
    coordinator_address: str
    num_processes: int
    process_id: int
    start_timeout_secs: int
    heartbeat_secs: int

    def __post_init__(self):
        one_of("distributed.start", self.start, ("single", "auto", "explicit"))
        at_least("distributed", self, 1, "num_processes", "start_timeout_secs")
        at_least("distributed", self, 2, "heartbeat_secs")
        if not 0 <= self.process_id < self.num_processes:
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
