"""Counts what a compiled program does, from the text of its optimized HLO: loop bodies as often as they run.

XLA's own `cost_analysis()` counts the body of a rolled loop once, which for PGD-10 hides nine tenths of the work.
Counted are, of what the compiler left in the program:

- multiply-adds of convolutions and matrix products, where one FLOP is a multiplication or an addition. Taps that
  fall on padding count, as in the figures of the literature (ResNet-18: 0.5554 GMAC an image); zeros that stand between
  the elements of a dilated array do not. So counted a convolution of even size and its two gradients cost the same.
- bytes between main memory and the chip: operands and results of every operation that is launched, with the padding
  of their layout; what the compiler keeps in the chip's own memory (memory space 1) is not counted, and neither is
  what happens within a fusion.
- bytes that collectives send: the size of what each device puts into them.
"""

import dataclasses
import functools
import math
import re

# Operations that move nothing: names for what exists, and the ends of asynchronous copies.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "copy-done", "slice-done",
    "async-done", "async-update", "all-reduce-done", "all-gather-done", "collective-permute-done", "partition-id",
    "opt-barrier", "while", "conditional", "call",
}  # fmt: skip
_FREE_CALLS = (
    "ConcatBitcast",
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "GatherScatterIndicesBitpacked",
)
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_SLICES = ("dynamic-slice", "slice", "gather")
_BITS = re.compile(r"\d+")

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")


@dataclasses.dataclass(frozen=True)
class Array:
    """Element type, size of each dimension, and how the array lies in memory."""

    dtype: str
    dims: tuple[int, ...]
    minor_to_major: tuple[int, ...]
    tile: tuple[int, ...]
    space: int  # 0: main memory

    @property
    def bytes(self):
        """Size without padding."""
        return self._size(self.dims)

    @property
    def padded_bytes(self):
        """Size with the padding of the layout's tiles, as it lies in memory."""
        physical = [self.dims[axis] for axis in reversed(self.minor_to_major)] or list(self.dims)
        for place, tile in zip(range(1, len(physical) + 1), reversed(self.tile), strict=False):
            physical[-place] = -(-physical[-place] // tile) * tile
        return self._size(physical)

    def _size(self, dims):
        """Bytes of so many elements."""
        bits = 8 if self.dtype == "pred" else int((_BITS.search(self.dtype) or [0])[0])
        return math.prod(dims) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the program."""

    name: str
    shape: tuple[Array, ...]  # several for a tuple
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    def attribute(self, name):
        """Text of an attribute up to the next comma or blank; None: there is none."""
        found = re.search(rf"\b{name}=%?([^,\s]+)", self.attributes)
        return found and found[1]

    @functools.cached_property
    def called(self):
        """Name of the computation that a fusion or a call stands for, or None."""
        return self.attribute("calls") or self.attribute("to_apply")


@dataclasses.dataclass(frozen=True)
class Operation:
    """What one launched operation costs each time, and how often it runs."""

    instruction: Instruction
    times: int
    flops: int
    bytes: int
    collective_bytes: int
    cycles: int  # the TPU compiler's own estimate; 0: none


class Program:
    """An optimized HLO module, from its text."""

    def __init__(self, text):
        self.text = text
        self._computations, self._entry = _parse(text)

    @functools.cached_property
    def operations(self):
        """Every operation that the program launches, as `Operation`."""
        return [
            Operation(
                instruction,
                times,
                self._flops(instruction),
                self._bytes(instruction, computation),
                self._collective_bytes(instruction, computation),
                int((re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes) or [0, 0])[1]),
            )
            for instruction, computation, times in self._launched(self._entry, 1)
        ]

    def total(self, cost):
        """Sum of a cost ("flops", "bytes", "collective_bytes" or "cycles") over the whole run."""
        return sum(operation.times * getattr(operation, cost) for operation in self.operations)

    def _launched(self, name, times):
        """Instructions of a computation and of the loops and calls in it, each with how often it runs."""
        computation = self._computations[name]
        for instruction in computation.values():
            if instruction.opcode == "while":
                trips = self._trips(instruction, computation)
                yield from self._launched(instruction.attribute("condition"), times * (trips + 1))
                yield from self._launched(instruction.attribute("body"), times * trips)
            elif instruction.opcode == "conditional":
                raise ValueError(f"{instruction.name} is a branch, whose cost depends on its data")
            elif instruction.opcode in ("call", "async-start") and instruction.called:
                yield from self._launched(instruction.called, times)
            else:
                yield instruction, computation, times

    def _trips(self, loop, computation):
        """How often a loop runs that counts from 0 to a constant."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if known:
            return int(known[1])
        condition = self._computations[loop.attribute("condition")]
        root = next(i for i in condition.values() if i.root)
        bounds = [condition[name] for name in root.operands if condition[name].opcode == "constant"]
        if root.opcode != "compare" or root.attribute("direction") != "LT" or len(bounds) != 1:
            raise ValueError(f"cannot tell how often {loop.name} runs: {root}")
        return int(bounds[0].attributes)

    def _flops(self, instruction):
        """FLOPs of convolutions and matrix products in an instruction, and in what it fuses."""
        if instruction.opcode == "fusion":
            return sum(map(self._flops, self._computations[instruction.called].values()))
        return self._multiply_adds.get(instruction.name, 0) * 2

    @functools.cached_property
    def _multiply_adds(self):
        """Multiply-adds by the name of the convolution or matrix product."""
        return {
            instruction.name: _multiply_adds(instruction, computation)
            for computation in self._computations.values()
            for instruction in computation.values()
            if instruction.opcode in ("convolution", "dot")
        }

    def _bytes(self, instruction, computation):
        """Bytes that an instruction reads from and writes to main memory."""
        if instruction.opcode in _FREE or any(f'"{call}"' in instruction.attributes for call in _FREE_CALLS):
            return 0
        if instruction.opcode.endswith("-start"):
            # An asynchronous copy names both ends, (to, from, ...): each counts if it is in main memory.
            moved = min(array.padded_bytes for array in instruction.shape[:2])
            return moved * sum(array.space == 0 for array in instruction.shape[:2])
        written = sum(array.padded_bytes for array in instruction.shape if array.space == 0)
        return written + sum(
            self._read(instruction, place, array)
            for place, name in enumerate(instruction.operands)
            for array in computation[name].shape
            if array.space == 0
        )

    def _read(self, instruction, place, array):
        """Bytes read of one operand; of what is only sliced, the slices."""
        users = [instruction]
        if instruction.opcode == "fusion":
            fused = self._computations[instruction.called]
            parameter = next(
                i.name for i in fused.values() if i.opcode == "parameter" and i.attributes == str(place)
            )
            users = [i for i in fused.values() if parameter in i.operands]
        if users and all(user.opcode in _SLICES for user in users):
            return min(array.padded_bytes, sum(a.padded_bytes for user in users for a in user.shape))
        return array.padded_bytes

    def _collective_bytes(self, instruction, computation):
        """Bytes that this device puts into a collective."""
        if instruction.opcode == "fusion":
            fused = self._computations[instruction.called]
            return sum(self._collective_bytes(inner, fused) for inner in fused.values())
        if instruction.opcode.removesuffix("-start") not in _COLLECTIVES:
            return 0
        return sum(array.bytes for name in instruction.operands for array in computation[name].shape)


def _parse(text):
    """Computations by name, each its instructions by name, and the name of the entry."""
    computations, entry, current = {}, None, None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current[found[2]] = _instruction(found[2], found[3], root=bool(found[1]))
    return computations, entry


def _instruction(name, text, *, root):
    """One instruction from what stands right of its `=`."""
    end = _closing(text, 0) + 1 if text[0] == "(" else text.index(" ")
    opcode, rest = text[end:].lstrip().split("(", 1)
    close = _closing("(" + rest, 0) - 1
    arguments = rest[:close]
    literal = opcode in ("parameter", "constant")
    return Instruction(
        name=name,
        shape=tuple(map(_array, _ARRAY.finditer(text[:end]))),
        opcode=opcode,
        operands=() if literal else tuple(re.findall(r"%([\w.\-]+)", arguments)),
        attributes=arguments if literal else rest[close + 1 :],
        root=root,
    )


def _closing(text, start):
    """Place of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    raise ValueError(f"no closing bracket in {text!r}")


def _array(found):
    """An array's type from its text, as f32[128,3]{1,0:T(8,128)S(1)}."""
    layout = found[4] or ""
    tile, space = re.search(r"T\(([\d,]+)\)", layout), re.search(r"S\((\d+)\)", layout)
    return Array(
        dtype=found[1],
        dims=_numbers(found[2].replace("<=", "")),
        minor_to_major=_numbers(found[3] or ""),
        tile=_numbers(tile[1]) if tile else (),
        space=int(space[1]) if space else 0,
    )


def _numbers(text):
    """The integers of a list that commas separate."""
    return tuple(int(number) for number in text.split(",") if number)


def _multiply_adds(instruction, computation):
    """Multiply-adds of one convolution or matrix product."""
    left, right = (computation[name].shape[0] for name in instruction.operands[:2])
    (out,) = instruction.shape
    if instruction.opcode == "dot":
        axes = _numbers(re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)[1])
        return math.prod(out.dims) * math.prod(left.dims[axis] for axis in axes)
    labels = re.match(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels"))
    window = _window(instruction, len(out.dims) - 2)
    count = out.dims[labels[3].index("b")] * out.dims[labels[3].index("f")] * right.dims[labels[2].index("i")]
    for axis, dimension in enumerate(window):
        count *= _taps(out.dims[labels[3].index(str(axis))], **dimension)
    return count


def _window(instruction, num_axes):
    """For each spatial axis of a convolution: its taps, stride, padding before and dilations."""
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    per_axis = {name: value.split("x") for name, value in fields.items()}

    def value(name, axis, default):
        return int(per_axis[name][axis].split("_")[0]) if name in per_axis else default

    return [
        {
            "size": value("size", axis, 1),
            "stride": value("stride", axis, 1),
            "pad": value("pad", axis, 0),
            "lhs_dilate": value("lhs_dilate", axis, 1),
            "rhs_dilate": value("rhs_dilate", axis, 1),
        }
        for axis in range(num_axes)
    ]


def _taps(outputs, *, size, stride, pad, lhs_dilate, rhs_dilate):
    """Pairs of an output and a tap along one axis, those on the zeros of a dilated array left out."""
    return sum(
        (place * stride + tap * rhs_dilate - pad) % lhs_dilate == 0
        for place in range(outputs)
        for tap in range(size)
    )
