"""The collectives of a compiled program, read from its optimized HLO.

An instruction inside a loop counts once per iteration. The bytes sent per device are those of ring
algorithms (Patarasuk and Yuan 2009), which are optimal on equal links: for groups of n and B bytes,
(n−1)/n·B to gather, scatter or exchange, and twice that for an all-reduce.
"""

import dataclasses
import math
import re
from collections import Counter

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = (\(.*?\)|\S+) ([\w-]+)\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_LAYOUT = re.compile(r"\]\{[^{}]*\}")
# A TPU moves some arrays step by step inside fusions of other work, each of which names the
# collective again; flags of a transfer in progress are operands, and -1 means that it starts here.
_UNDER_WAY = re.compile(r'"async_collective_fusion_config":\{"flag_start":"\d')
# A TPU's reduce-scatter: a fusion of this name, with all-reduce and dynamic-slice inside.
_SUM_AND_SLICE = "all-reduce-scatter"
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Collective:
    """Identical collective calls.

    Attributes:
      kind: one of KINDS.
      axes: mesh axes along which the devices of a group differ.
      group_size: devices per group.
      dtype: dtype of the elements in XLA's notation, such as "bf16".
      bytes: size of the whole array of one call: reduced, gathered into or scattered from.
      count: calls per step.
    """

    kind: str
    axes: tuple[str, ...]
    group_size: int
    dtype: str
    bytes: int
    count: int

    @property
    def sent_bytes(self) -> float:
        """Bytes that one device sends per step."""
        share = (self.group_size - 1) / self.group_size
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}
        return self.count * self.bytes * factor.get(self.kind, share)


def collectives(hlo: str, mesh_shape: dict[str, int]) -> list[Collective]:
    """Returns all collectives of a program, those that send most first.

    Args:
      hlo: text of the optimized module, from `compiled.as_text()`.
      mesh_shape: sizes of the mesh axes, in order; device ids are row-major.

    Raises:
      ValueError: the trip count of a loop with collectives, or the devices of a group, cannot be
        read.
    """
    entry, computations = _computations(hlo)
    counts = Counter()
    for name, times in _calls(entry, computations).items():
        for line in computations[name]:
            found = _collective(line, mesh_shape)
            if found is None or found.group_size == 1 or _UNDER_WAY.search(line):
                continue
            if name.startswith(_SUM_AND_SLICE) and found.kind == "all-reduce":
                found = dataclasses.replace(found, kind="reduce-scatter")
            counts[found] += times
    every = [dataclasses.replace(found, count=count) for found, count in counts.items()]
    return sorted(every, key=lambda found: -found.sent_bytes)


def _computations(hlo: str) -> tuple[str, dict[str, list[str]]]:
    entry, lines, computations = "", [], {}
    for line in hlo.splitlines():
        line = _LAYOUT.sub("]", line)
        if match := _COMPUTATION.match(line):
            lines = computations.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        elif line.startswith("}"):
            lines = []
        else:
            lines.append(line)
    if not entry:
        raise ValueError("the text is no HLO module: it has no ENTRY computation.")
    return entry, computations


def _calls(entry: str, computations: dict[str, list[str]]) -> Counter:
    """Returns how often each computation runs."""
    times = Counter()

    def visit(name: str, count: int):
        times[name] += count
        for line in computations[name]:
            opcode = _opcode(line)
            if opcode == "while":
                body = re.search(r"\bbody=%?([\w.-]+)", line)[1]
                if _communicates(body, computations):
                    visit(body, count * _trips(line, computations))
            elif opcode and not opcode.endswith(("-done", "-update")):
                for called in _CALLED.findall(line):
                    visit(called, count)
                for branches in _BRANCHES.findall(line):
                    for branch in branches.split(","):
                        visit(branch.strip().lstrip("%"), count)

    visit(entry, 1)
    return times


def _communicates(name: str, computations: dict[str, list[str]]) -> bool:
    """Tells whether there is a collective in a computation or in one that it names."""
    seen, left = set(), {name}
    while left:
        lines = computations[left.pop()]
        if any((_opcode(line) or "").removesuffix("-start") in KINDS for line in lines):
            return True
        words = set(re.findall(r"[\w.-]+", "\n".join(lines)))
        left |= (words & computations.keys()) - seen
        seen |= left
    return False


def _opcode(line: str) -> str | None:
    match = _INSTRUCTION.match(line)
    return match[2] if match else None


def _trips(line: str, computations: dict[str, list[str]]) -> int:
    if match := _TRIPS.search(line):
        return int(match[1])
    # Without XLA's trip count: a counter from 0 compared with the only constant.
    condition = computations[re.search(r"\bcondition=%?([\w.-]+)", line)[1]]
    constants = re.findall(r"\b[su]\d+\[\] constant\((\d+)\)", "\n".join(condition))
    if len(constants) != 1 or "direction=LT" not in "\n".join(condition):
        raise ValueError(f"how often this loop turns cannot be read: {line.strip()[:200]}")
    return int(constants[0])


def _collective(line: str, mesh_shape: dict[str, int]) -> Collective | None:
    match = _INSTRUCTION.match(line)
    if not match or match[2].removesuffix("-start") not in KINDS:
        return None
    kind = match[2].removesuffix("-start")
    arrays = _ARRAY.findall(match[1])
    if match[2] == "all-gather-start":  # (operands, results)
        arrays = arrays[len(arrays) // 2 :]
    elif match[2] == "collective-permute-start":  # (operand, result, context)
        arrays = arrays[1:2]
    size = sum(_bits(dtype) // 8 * _elements(shape) for dtype, shape in arrays)
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?\})\}", line)[1]
        groups = [_numbers(pair) for pair in re.findall(r"\{([\d,]+)\}", pairs)]
        groups = [group for group in groups if group[0] != group[1]] or [[0]]
    else:
        groups = _groups(line, math.prod(mesh_shape.values()))
    group_size = len(groups[0])
    if kind == "reduce-scatter":
        size *= group_size
    return Collective(kind, _axes(groups, mesh_shape), group_size, arrays[0][0], size, 0)


def _groups(line: str, num_devices: int) -> list[list[int]]:
    """Returns the device ids of each group, from XLA's three notations."""
    if match := re.search(r"replica_groups=\{(\{.*?\})\}", line):
        return [_numbers(group) for group in re.findall(r"\{([\d,]+)\}", match[1])]
    if "replica_groups={}" in line:
        return [list(range(num_devices))]
    if match := re.search(r"replica_groups=\[(\S+?)\]<=(\[\S+?\](?:T\(\S+?\))?)(?=[, ]|$)", line):
        return _iota(match[2]).reshape(_numbers(match[1])).tolist()
    if match := re.search(
        r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\)?)\))? \{(.*?)\}", line
    ):
        names, sizes = zip(*re.findall(r"'(\w+)'=(\d+)", match[1]))
        inside = [names.index(name) for name in re.findall(r"'(\w+)'(?!:)", match[3])]
        outside = [axis for axis in range(len(names)) if axis not in inside]
        ids = _iota(match[2]) if match[2] else np.arange(num_devices)
        ids = ids.reshape([int(size) for size in sizes]).transpose(outside + inside)
        return ids.reshape(-1, math.prod(int(sizes[axis]) for axis in inside)).tolist()
    raise ValueError(f"the groups of this collective cannot be read: {line.strip()[:300]}")


def _iota(text: str) -> np.ndarray:
    """Expands [4,2]T(1,0): the numbers from 0 in that shape, transposed and flattened."""
    match = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    shape = _numbers(match[1])
    order = _numbers(match[2]) if match[2] else range(len(shape))
    return np.arange(math.prod(shape)).reshape(shape).transpose(order).ravel()


def _axes(groups: list[list[int]], mesh_shape: dict[str, int]) -> tuple[str, ...]:
    where = np.stack(np.unravel_index(np.asarray(groups), tuple(mesh_shape.values())))
    differs = (where != where[:, :, :1]).any(axis=(1, 2))
    return tuple(axis for axis, is_used in zip(mesh_shape, differs) if is_used)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _elements(shape: str) -> int:
    return math.prod(_numbers(shape)) if shape else 1


def _bits(dtype: str) -> int:
    return 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
