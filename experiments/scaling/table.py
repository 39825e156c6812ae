"""The table of README.md from results.jsonl: python -m experiments.scaling.table."""

import json
import pathlib

# Dense bf16 FLOP/s of one device, from the vendors' data sheets.
PEAK = {"v5e": 197e12, "H100": 989e12}
MFU = 0.5  # share of the peak that the compute reaches
OVERHEAD = 0.1  # of the compute time that may go to sending, none of it hidden behind compute


def row(result: dict) -> str:
    """One line of the table."""
    mesh = "×".join(str(size) for size in result["mesh"].values())
    held = result["param_bytes"] + result["optimizer_bytes"]
    cells = [result["model"], str(result["devices"]), mesh, f"{held / 1e6:,.0f}"]
    cells += [f"{result['model_flops'] / 1e12:.2f}", f"{result['sent_bytes'] / 1e6:,.0f}"]
    for peak in PEAK.values():
        seconds = OVERHEAD * result["model_flops"] / (MFU * peak)
        cells.append(f"{result['sent_bytes'] / seconds / 1e9:,.0f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Prints the table, by model and number of devices."""
    lines = (pathlib.Path(__file__).parent / "results.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    results.sort(key=lambda result: (result["model"], result["devices"], result["sent_bytes"]))
    names = ["model", "devices", "data×fsdp×tensor", "state, MB", "TFLOP", "sent, MB"]
    print("| " + " | ".join([*names, *(f"{name}, GB/s" for name in PEAK)]) + " |")
    print("| --- | ---: | --- " + "| ---: " * (3 + len(PEAK)) + "|")
    print("\n".join(row(result) for result in results))


if __name__ == "__main__":
    main()
