"""Whether two cores share a cache now, which no virtual machine is told.

  python -m tests.benchmarks.shared_cache

Hosts move a machine's cores about: in one moment they lie beside each other, in
the next they have a cache each, and what one has written reaches the other at a
third of the rate.  Steps whose threads hand blocks to each other feel it.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time

import numpy as np

# More than a core's own cache, less than that of several.
_FLOATS = 1 << 20
_ROUNDS = 40
# Seconds that either process waits for the other.
_PATIENCE = 10
# Cores that shared one had 0.8 to 0.95 of the rate, others 0.3 to 0.4.
_TOGETHER = 0.6


def now() -> float | None:
  """Returns how fast one core reads what the other wrote.

  Relative to how fast it reads what it wrote itself; None where there is one
  core only, where none can be chosen, or if the measurement failed.
  """
  if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
    return None
  # In a process of its own, which may fork and leaves the caller where it is.
  answer = subprocess.run(
    [sys.executable, "-m", "tests.benchmarks.shared_cache"],
    capture_output=True,
    text=True,
    check=False,
  )
  return None if answer.returncode else float(answer.stdout)


def where(shares: list[float | None]) -> str:
  """Returns where cores were by what `now` said, more than once.

  "together", "apart", "moved" in between, or "unknown".
  """
  if not shares or None in shares:
    return "unknown"
  together = [share > _TOGETHER for share in shares]
  if any(together):
    return "together" if all(together) else "moved"
  return "apart"


def _write(buffer, core: int, begin, written) -> None:
  os.sched_setaffinity(0, {core})
  floats = np.frombuffer(buffer, np.float32)
  for i in range(_ROUNDS):
    if not begin.wait(_PATIENCE):
      return  # Nobody is there any more.
    begin.clear()
    floats[:] = i
    written.set()


def _seconds_to_read(floats) -> float:
  began = time.perf_counter()
  floats.max()
  return time.perf_counter() - began


def main():
  """Prints it."""
  context = multiprocessing.get_context("fork")
  here, there = sorted(os.sched_getaffinity(0))[:2]
  os.sched_setaffinity(0, {here})
  buffer = context.RawArray("f", _FLOATS)
  floats = np.frombuffer(buffer, np.float32)
  begin, written = context.Event(), context.Event()
  writer = context.Process(target=_write, args=(buffer, there, begin, written))
  writer.start()
  of_other, of_self = [], []
  for i in range(_ROUNDS):
    begin.set()
    if not written.wait(_PATIENCE):
      sys.exit("error: the other core's process does not answer")
    written.clear()
    of_other.append(_seconds_to_read(floats))
    floats[:] = i
    of_self.append(_seconds_to_read(floats))
  writer.join()
  print(statistics.median(of_self) / statistics.median(of_other))


if __name__ == "__main__":
  main()
