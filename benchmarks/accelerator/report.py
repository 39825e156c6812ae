"""The report: a table of the checks, tables and a picture of the timings, from what was kept."""

import pathlib

from benchmarks import measuring
from benchmarks.accelerator.sizes import BERT, DATA_PARALLEL
from benchmarks.measuring import Result
from sibert_jax.files import atomically, write_json

# Kind of a part -> title of its table, what the ratios are to.
TABLES = {
    "attention": (
        "Attention, forward and backward",
        "softmax attention: cuDNN's on a GPU, JAX's flash attention on a TPU, else XLA's",
    ),
    "step": ("Training step of base, bfloat16, on one device", BERT),
    "batch": ("Batches of base on one device, doubled until one fails", "the first"),
    "mesh": ("Training step of base on every mesh of the devices", DATA_PARALLEL),
}


def results(parts: dict[str, dict]) -> dict[str, Result]:
    """One result per kind of timing, with the rows of all its parts that have values.

    Args:
      parts: name to what `Session.do` kept, in order.
    """
    found = {}
    for kind, (title, baseline) in TABLES.items():
        groups: dict[str, dict] = {}
        for part in parts.values():
            if part["do"] == kind and part.get("values"):
                group = groups.setdefault(part["group"], {"values": {}, "more": {}})
                group["values"] |= part["values"]
                group["more"] |= part["more"]
                group.setdefault("baseline", part.get("baseline", next(iter(part["values"]))))
        rows = []
        for name, group in groups.items():
            values = group["values"]
            first = group["baseline"] if group["baseline"] in values else next(iter(values))
            rows += measuring.rows(values, first, name, group["more"])
        notes = []
        for part in parts.values():
            if part["do"] == kind:
                notes += [*part.get("notes", ()), *filter(None, [part.get("error")])]
        found[kind] = Result(title, "tokens/s", True, baseline, rows, notes)
    return found


def checks_table(parts: dict[str, dict]) -> str:
    """All checks as a Markdown table; a part that failed as a whole is a line of it."""
    lines = [
        "| check | greatest difference | bound | |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, part in parts.items():
        for check in part.get("checks", []):
            found = "–" if check["found"] is None else f"{check['found']:.2g}"
            status = ": ".join(filter(None, (check["status"], check["why"])))
            lines.append(f"| {check['name']} | {found} | {check['bound']:.2g} | {status} |")
        if part["do"].startswith("check") and "error" in part:
            lines.append(f"| {name} | – | – | failed: {part['error']} |")
    return "\n".join(lines)


def check_failed(parts: dict[str, dict]) -> bool:
    """Whether a check has failed, or could not be made although it is for this device."""
    return any(
        ("error" in part and part["do"].startswith("check"))
        or any(check["status"] == "failed" for check in part.get("checks", ()))
        for part in parts.values()
    )


def markdown(kept: dict) -> str:
    """The report as Markdown: machine, checks, timings, and what is missing."""
    parts, machine = kept["parts"], kept["machine"]
    statuses = [check["status"] for part in parts.values() for check in part.get("checks", [])]
    counts = ", ".join(f"{statuses.count(each)} {each}" for each in dict.fromkeys(statuses))
    lines = [
        f"# {machine['device']}",
        " · ".join(f"{key} {value}" for key, value in machine.items()),
        *["Rehearsed at tiny sizes: the times say nothing."] * kept["tiny"],
        f"Checks: {counts or 'none'}.",
    ]
    # A batch that does not fit, and a mesh that does not divide the model, are results.
    failed = [
        name
        for name, part in parts.items()
        if "error" in part and part["do"] not in ("batch", "mesh")
    ]
    if failed:
        lines.append(f"Parts that failed: {'; '.join(failed)}.")
    if kept["missing"]:
        lines.append(
            f"Not done, as the time was over: {'; '.join(kept['missing'])}. The same command "
            "continues."
        )
    lines += ["## Checks", checks_table(parts)]
    timed = results(parts)
    for result in timed.values():
        lines += [f"## {result.title}", measuring.table(result)]
    if any(result.rows for result in timed.values()):
        lines.append("![tokens per second](accelerator.png)")
    return "\n\n".join(lines) + "\n"


def write(folder: pathlib.Path, kept: dict) -> None:
    """Writes accelerator.json and accelerator.md.

    Args:
      folder: where to; it exists.
      kept: what is in the JSON file.
    """
    write_json(folder / "accelerator.json", kept)
    with atomically(folder / "accelerator.md") as temporary:
        temporary.write_text(markdown(kept), encoding="utf-8")


def draw(folder: pathlib.Path, kept: dict) -> None:
    """Writes accelerator.png if anything is timed; arguments as for `write`."""
    rows = [row for result in results(kept["parts"]).values() for row in result.rows]
    if rows:
        title = kept["machine"]["device"]
        everything = Result(title, "tokens/s", True, "", rows, [])
        measuring.draw(everything, folder / "accelerator.png")
