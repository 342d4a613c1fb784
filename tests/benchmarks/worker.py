"""A process of one side of the benchmark: makes operations ready, times them.

  python -m tests.benchmarks.worker jax|torch|onnx

Takes a line of JSON for each request and answers with one:
  {"prepare": operation, "options": {...}}  makes it ready and runs it once;
  {"run": seconds}  runs it again and again for so long, once at the least;
    networks once more before, which is not counted: memory that was free while
    the other side ran may have gone back to a virtual machine's host, and to
    have it again takes up to a second;
  {"profile": 1}  runs it once and says what took how much of it (JAX only).
What else is printed goes to standard error.
"""

import importlib
import json
import os
import sys
import time
import traceback

import numpy as np

from tests.benchmarks.operation import Operation, Options


def _ready(module, request: dict) -> tuple[Operation, dict]:
  options = Options(**request["options"])
  began = time.perf_counter()
  operation = getattr(module, request["prepare"])(options)
  answer = {
    "ready_seconds": time.perf_counter() - began,
    "items": operation.items,
    "unit": operation.unit,
    "facts": operation.facts,
  }
  if operation.outputs:
    answer["outputs"] = os.path.join(options.folder, f"{os.getpid()}.npz")
    np.savez(answer["outputs"], **operation.outputs)
  return operation, answer


def _timed(operation: Operation, most: float, memory) -> dict:
  if operation.outputs:
    operation.run()
  seconds = []
  while not seconds or sum(seconds) + seconds[-1] < most:
    began = time.perf_counter()
    operation.run()
    seconds.append(time.perf_counter() - began)
  return {"seconds": seconds, "memory": memory()}


def main() -> None:
  """Answers until standard input ends."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  module = importlib.import_module(f"tests.benchmarks.{sys.argv[1]}_operations")
  operation = None
  for line in sys.stdin:
    request = json.loads(line)
    try:
      if "prepare" in request:
        operation = None  # What it held is free before the next one.
        operation, answer = _ready(module, request)
      elif "profile" in request:
        answer = {"profile": module.profile(operation.run)}
      else:
        answer = _timed(operation, request["run"], module.memory)
    except Exception as e:  # noqa: BLE001 (the other side goes on)
      traceback.print_exc()
      answer = {"error": f"{type(e).__name__}: {e}"[:500]}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
  main()
