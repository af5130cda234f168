"""Counts what a compiled program does, from the text of its optimized HLO.

XLA's own `cost_analysis()` counts the body of a loop once, which for PGD-10 hides nine tenths of the work. Here
a loop's body counts as often as it runs. For what the compiler left in the program, this module counts:

- FLOPs: multiplications and additions of convolutions and matrix products. Taps on padding count, as in the
  literature (ResNet-18: 0.5554 GMAC an image). Taps on the zeros between the elements of a dilated array do not. So a
  convolution of even size and its two gradients cost the same.
- Bytes between main memory and the chip: operands and results of every launched operation, with the padding of their
  layout. Arrays in the chip's own memory (memory space 1) and values within a fusion do not count.
- Bytes that a device puts into collectives.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Operations that move nothing: names for existing arrays, and the ends of asynchronous copies.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "opt-barrier",
    "copy-done", "slice-done", "async-done", "async-update", "all-reduce-done", "all-gather-done",
    "collective-permute-done",
}  # fmt: skip
_FREE_CALLS = re.compile(
    '"(ConcatBitcast|AllocateBuffer|AssumeGatherIndicesInBound|GatherScatterIndicesBitpacked)"'
)
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_SLICES = ("dynamic-slice", "slice", "gather")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
# Name, shape, opcode, operands and attributes of one line.
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)((?:, [\w\-]+=.*)?)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")


class Array(NamedTuple):
    """An array's shape and its place in memory."""

    dims: tuple[int, ...]
    bytes: int  # without padding
    padded_bytes: int  # with the padding of the layout's tiles
    in_main_memory: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
    """One line of the program, and the computation that it stands in."""

    name: str
    shape: tuple[Array, ...]  # several for a tuple
    opcode: str
    arguments: str
    attributes: str
    is_root: bool
    computation: "Computation"

    @functools.cached_property
    def operands(self) -> list["Instruction"]:
        """The instructions that this one reads."""
        return [self.computation[name] for name in re.findall(r"%([\w.\-]+)", self.arguments)]

    def find(self, pattern: str) -> str:
        """Returns the first group of a pattern in the attributes; empty if the pattern is not there."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""


Computation = dict[str, Instruction]  # by name


@dataclasses.dataclass(frozen=True)
class Operation:
    """The costs of one launched operation, each time that it runs."""

    times: int
    flops: int
    bytes: int
    collective_bytes: int
    cycles: int  # the TPU compiler's own estimate; 0 if it has none
    is_asynchronous: bool


class Program:
    """An optimized HLO module, from its text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._computations: dict[str, Computation] = {}
        for line in text.splitlines():
            if match := _COMPUTATION.match(line):
                current = self._computations[match[2]] = {}
                if match[1]:
                    self._entry = match[2]
            elif match := _INSTRUCTION.match(line):
                root, name, shape, opcode, arguments, attributes = match.groups()
                arrays = tuple(_array(*parts) for parts in _ARRAY.findall(shape))
                current[name] = Instruction(name, arrays, opcode, arguments, attributes, bool(root), current)

    @functools.cached_property
    def operations(self) -> list[Operation]:
        """Every operation that the program launches."""
        return [
            Operation(
                times,
                sum(2 * _multiply_adds(inner) for inner in self._inside(instruction)),
                self._bytes(instruction),
                sum(_collective_bytes(inner) for inner in self._inside(instruction)),
                int(instruction.find(r'"estimated_cycles":"(\d+)"') or 0),
                instruction.opcode.endswith("-start"),
            )
            for instruction, times in self._launched(self._computations[self._entry], 1)
        ]

    def total(self, cost: str) -> int:
        """Returns the sum of "flops", "bytes", "collective_bytes" or "cycles" over the whole run."""
        return sum(operation.times * getattr(operation, cost) for operation in self.operations)

    def _called(self, instruction: Instruction, *attributes: str) -> Computation:
        """Returns the computation that an attribute names, empty if there is no such attribute."""
        return self._computations.get(instruction.find(rf"\b(?:{'|'.join(attributes)})=%?([\w.\-]+)"), {})

    def _launched(self, computation: Computation, times: int) -> Iterator[tuple[Instruction, int]]:
        """Yields the instructions of a computation and of the loops and calls in it, and how often each runs."""
        for instruction in computation.values():
            if instruction.opcode == "while":
                condition, body = (self._called(instruction, name) for name in ("condition", "body"))
                trips = _trips(instruction, condition)
                yield from self._launched(condition, times * (trips + 1))
                yield from self._launched(body, times * trips)
            elif instruction.opcode == "conditional":
                raise ValueError(f"{instruction.name} is a branch, whose cost depends on its data")
            elif instruction.opcode in ("call", "async-start") and (
                called := self._called(instruction, "calls", "to_apply")
            ):
                yield from self._launched(called, times)
            else:
                yield instruction, times

    def _inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yields the instructions within a fusion, or the instruction itself if it is none."""
        if instruction.opcode != "fusion":
            yield instruction
            return
        for inner in self._called(instruction, "calls").values():
            yield from self._inside(inner)

    def _bytes(self, instruction: Instruction) -> int:
        """Returns the bytes that an instruction reads from and writes to main memory."""
        if instruction.opcode in _FREE or _FREE_CALLS.search(instruction.attributes):
            return 0
        if instruction.opcode.endswith("-start"):
            # An asynchronous copy names both ends, (to, from, ...): each counts if it is in main memory.
            ends = instruction.shape[:2]
            return min(array.padded_bytes for array in ends) * sum(array.in_main_memory for array in ends)
        written = sum(array.padded_bytes for array in instruction.shape if array.in_main_memory)
        return written + sum(
            self._bytes_read(instruction, place, array)
            for place, operand in enumerate(instruction.operands)
            for array in operand.shape
            if array.in_main_memory
        )

    def _bytes_read(self, instruction: Instruction, place: int, array: Array) -> int:
        """Returns the bytes read of one operand: if it is only sliced, those of the slices."""
        users = [instruction]
        if instruction.opcode == "fusion":
            fused = self._called(instruction, "calls").values()
            (parameter,) = (i for i in fused if i.opcode == "parameter" and i.arguments == str(place))
            users = [inner for inner in fused if parameter in inner.operands]
        if users and all(user.opcode in _SLICES for user in users):
            return min(array.padded_bytes, sum(part.padded_bytes for user in users for part in user.shape))
        return array.padded_bytes


def _trips(loop: Instruction, condition: Computation) -> int:
    """Returns how often a loop runs that counts from 0 to a constant."""
    if known := loop.find(r'"known_trip_count":\{"n":"(\d+)"\}'):
        return int(known)
    (root,) = (instruction for instruction in condition.values() if instruction.is_root)
    bounds = [operand for operand in root.operands if operand.opcode == "constant"]
    if root.opcode != "compare" or "direction=LT" not in root.attributes or len(bounds) != 1:
        raise ValueError(f"cannot tell how often {loop.name} runs: {root.opcode}{root.attributes}")
    return int(bounds[0].arguments)


def _multiply_adds(instruction: Instruction) -> int:
    """Returns the multiply-adds of a convolution or matrix product; 0 for anything else."""
    if instruction.opcode not in ("convolution", "dot"):
        return 0
    left, right = (operand.shape[0].dims for operand in instruction.operands[:2])
    (out,) = instruction.shape
    if instruction.opcode == "dot":
        axes = _numbers(instruction.find(r"lhs_contracting_dims=\{([\d,]*)\}"))
        return math.prod(out.dims) * math.prod(left[axis] for axis in axes)
    _, kernel, output = re.split("_|->", instruction.find(r"dim_labels=(\S+?)(?:,|$)"))
    count = out.dims[output.index("b")] * out.dims[output.index("f")] * right[kernel.index("i")]
    for axis in range(len(out.dims) - 2):
        count *= _taps(out.dims[output.index(str(axis))], instruction, axis)
    return count


def _collective_bytes(instruction: Instruction) -> int:
    """Returns the bytes that this device puts into a collective; 0 for anything else."""
    if instruction.opcode.removesuffix("-start") not in _COLLECTIVES:
        return 0
    return sum(array.bytes for operand in instruction.operands for array in operand.shape)


def _array(dtype: str, dims: str, minor_to_major: str, layout: str) -> Array:
    """Returns an array from the parts of its text, as in f32[128,3]{1,0:T(8,128)S(1)}."""
    sizes = _numbers(dims.replace("<=", ""))
    physical = [sizes[axis] for axis in reversed(_numbers(minor_to_major))] or list(sizes)
    tile, space = re.search(r"T\(([\d,]+)\)", layout), re.search(r"S\((\d+)\)", layout)
    tiles = _numbers(tile[1]) if tile else ()
    for place, size in zip(range(len(physical)), reversed(tiles), strict=False):
        physical[-1 - place] = -(-physical[-1 - place] // size) * size
    digits = re.search(r"\d+", dtype)
    bits = 8 if dtype == "pred" else int(digits[0]) if digits else 0
    return Array(
        sizes,
        math.prod(sizes) * bits // 8,
        math.prod(physical) * bits // 8,
        in_main_memory=space is None or space[1] == "0",
    )


def _taps(outputs: int, convolution: Instruction, axis: int) -> int:
    """Counts the pairs of an output and a tap along a spatial axis, without those on the zeros of a dilated array."""

    def field(name: str, default: int) -> int:
        values = convolution.find(rf"window=\{{[^}}]*\b{name}=([\w\-]+)")
        return int(values.split("x")[axis].split("_")[0]) if values else default

    starts = np.arange(outputs)[:, None] * field("stride", 1) - field("pad", 0)
    places = starts + np.arange(field("size", 1)) * field("rhs_dilate", 1)
    return int((places % field("lhs_dilate", 1) == 0).sum())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
