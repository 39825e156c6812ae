"""Compiles base and large for 1 to 256 devices: python -m experiments.scaling.measure NAME N MESH.

Adds one line to results.jsonl. MESH is data x fsdp x tensor; every device has 16 examples a step.
"""

import dataclasses
import json
import pathlib
import sys

from sibert_jax.configs import sibert_base, sibert_large
from sibert_jax.tools.compile_only import compile_only, described_devices

EXAMPLES_PER_DEVICE = 16
CONFIGS = {"base": sibert_base, "large": sibert_large}


def main(name: str, num_devices: str, mesh: str) -> None:
    """Compiles one size for one mesh."""
    devices = described_devices(num_devices)
    config = CONFIGS[name].get_config("paper")
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = map(int, mesh.split("x"))
    config.train.global_batch_size = EXAMPLES_PER_DEVICE * len(devices)
    report = compile_only(config, devices)
    row = {"model": name, "devices": len(devices)} | dataclasses.asdict(report)
    row["sent_bytes"] = report.sent_bytes
    with (pathlib.Path(__file__).parent / "results.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
