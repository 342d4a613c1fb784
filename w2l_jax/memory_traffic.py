"""The memory that a compiled program reads and writes, by its text.

XLA tells this of CPU and TPU programs (`compiled.cost_analysis()`); of a GPU's
that was compiled without one it tells nothing, and what it knows of cuDNN's
convolutions is only that they are calls.
"""

import collections
import dataclasses
import math
import re

_TYPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
# Names for what is there already.
_FREE = {
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "after-all",
  "partition-id",
  "replica-id",
  "all-reduce-done",  # Its start has been counted.
}


@dataclasses.dataclass
class _Instruction:
  is_root: bool  # Of its computation.
  type: str
  operation: str
  arguments: str  # As written.
  operands: list[str]  # Names.
  attributes: str


def _bytes(type_text: str) -> int:
  """Returns the bytes of a type, or of a tuple's parts."""
  total = 0
  for name, shape in _TYPE.findall(type_text):
    bits = re.search(r"\d+$", name)
    size = math.prod(int(n) for n in shape.split(",") if n)
    # pred: a byte each; token and opaque have no shape and no size here.
    total += size * (int(bits[0]) // 8 if bits else name == "pred")
  return total


def _closing(text: str) -> int:
  """Returns where the parenthesis that `text` begins with is closed."""
  depth = 0
  for i, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if depth == 0:
      return i
  raise ValueError(f"no closing parenthesis: {text[:80]}")


def _parsed(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
  """Returns ({computation: {name: instruction}}, the entry's name)."""
  computations, entry, current = {}, "", None
  for line in text.splitlines():
    if found := _COMPUTATION.match(line):
      current = computations[found[2]] = {}
      if found[1]:
        entry = found[2]
    elif current is not None and (found := _INSTRUCTION.match(line)):
      rest = found[3]
      end = _closing(rest) + 1 if rest[0] == "(" else rest.index(" ")
      type_text, rest = rest[:end], rest[end:].lstrip()
      begin = rest.index("(")
      end = begin + _closing(rest[begin:])
      arguments = rest[begin + 1 : end]
      current[found[2]] = _Instruction(
        bool(found[1]),
        type_text,
        rest[:begin],
        arguments,
        re.findall(r"%([\w.\-]+)", arguments),
        rest[end + 1 :],
      )
  return computations, entry


def _called(instruction: _Instruction, key: str) -> str:
  return re.search(rf"\b{key}=%?([\w.\-]+)", instruction.attributes)[1]


def _read_of(name: str, computation: dict[str, _Instruction]) -> int | None:
  """Returns the bytes of a fusion's value that are read; None: all of it."""
  if computation[name].is_root:
    return None
  total = 0
  for user, instruction in computation.items():
    if name not in instruction.operands:
      continue
    if instruction.operation in ("slice", "dynamic-slice"):
      total += _bytes(instruction.type)
    elif instruction.operation in ("bitcast", "convert"):
      read = _read_of(user, computation)
      if read is None:
        return None
      total += read
    else:
      return None
  return total


def bytes_accessed(text: str) -> int:
  """Returns what a program's operations read and write, in bytes.

  The result of each, and each operand once; of an operand that a fusion takes
  slices of, those.  Caches and workspaces are not counted.  An array that a
  loop updates in place (dynamic-update-slice), as a CPU's steps do, counts
  whole each time: the GPUs' have none.

  Args:
    text: of an optimised module, `compiled.as_text()`.
  """
  computations, entry = _parsed(text)

  def of_computation(name: str) -> int:
    return sum(
      of_instruction(instruction, computations[name])
      for instruction in computations[name].values()
    )

  def of_instruction(instruction, around) -> int:
    operation = instruction.operation
    if operation in _FREE:
      return 0
    if operation == "while":
      trips = re.search(
        r'known_trip_count":\{"n":"(\d+)"', instruction.attributes
      )
      body = of_computation(_called(instruction, "body"))
      return body * (int(trips[1]) if trips else 1)
    if operation == "call":
      return of_computation(_called(instruction, "to_apply"))
    total = _bytes(instruction.type)
    parameters = collections.defaultdict(lambda: None)
    if operation == "fusion":
      body = computations[_called(instruction, "calls")]
      for name, inner in body.items():
        if inner.operation == "parameter":
          parameters[int(inner.arguments)] = _read_of(name, body)
    counted = set()
    for i, name in enumerate(instruction.operands):
      if name in counted or name not in around:
        continue
      counted.add(name)
      whole, read = _bytes(around[name].type), parameters[i]
      total += whole if read is None else min(whole, read)
    return total

  return of_computation(entry)
