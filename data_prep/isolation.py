"""Runs jobs in processes of their own, any of which may die or hang.

A job that kills its process (a crash in a decoder, out of memory) or takes too
long is lost, not the others.  What a job does is the caller's matter.
"""

import collections
import contextlib
import dataclasses
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# A job that is lost is tried once more: a worker may have been killed for what
# another process did (out of memory), and a machine may have stood still.
ATTEMPTS = 2


_STARTED = "started"


@dataclasses.dataclass(frozen=True)
class Lost:
  """Stands for the result of a job that was lost; says why."""

  reason: str


def _end_with_parent() -> None:
  """Ends this worker when its parent is killed: else it would go on alone."""

  def wait():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def _work(connection, function: Callable) -> None:
  """A worker: takes jobs until there are no more."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends it.
  _end_with_parent()
  # Its imports are done: now the first job's time begins.
  connection.send(_STARTED)
  while True:
    try:
      job = connection.recv()
    except EOFError:
      return
    try:
      connection.send((True, function(job)))
    except Exception as e:
      connection.send((False, e))


class _Worker:
  """A process, the pipe to it, and what it is doing."""

  def __init__(self, context, function: Callable):
    self.connection, theirs = context.Pipe()
    self.process = context.Process(
      target=_work, args=(theirs, function), daemon=True
    )
    self.process.start()
    theirs.close()
    self.started = False
    self.job = self.deadline = self._seconds = None

  def start(self, job, seconds: float) -> None:
    """Gives it a job that may take so long."""
    self.job, self._seconds = job, seconds
    self.deadline = time.monotonic() + seconds if self.started else math.inf
    # One that has died is seen when its answer is read.
    with contextlib.suppress(BrokenPipeError):
      self.connection.send(job)

  def has_started(self) -> None:
    """Its first job's time begins."""
    self.started = True
    self.deadline = time.monotonic() + self._seconds

  def end(self) -> str:
    """Ends the process; returns how it ended."""
    self.process.join(timeout=1)  # One that died may still have its status.
    self.process.kill()
    self.process.join()
    self.connection.close()
    code = self.process.exitcode
    if code < 0:
      return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def run(
  function: Callable[[Any], Any],
  jobs: Iterable[Any],
  workers: int,
  limit: Callable[[Any], float],
) -> Iterator[tuple[Any, Any]]:
  """Runs function(job) for every job, on several processes.

  Every worker has a pipe of its own and nothing is shared, so that none can
  take another along, whenever it is killed.  Processes are spawned, not forked:
  JAX and PyAV have threads that a fork would lose.

  Args:
    function: of a module, with one argument.
    jobs: what it is called with, in this order.
    workers: number of processes.
    limit: seconds that a job may take.

  Yields:
    (job, its result, or Lost), as they end.

  Raises:
    Exception: what `function` raised; the other jobs are ended.
  """
  context = multiprocessing.get_context("spawn")
  waiting = collections.deque((job, 1) for job in jobs)
  busy: dict[Any, tuple[_Worker, int]] = {}  # by connection
  idle: list[_Worker] = []
  try:
    while waiting or busy:
      while waiting and len(busy) < workers:
        worker = idle.pop() if idle else _Worker(context, function)
        job, attempt = waiting.popleft()
        worker.start(job, limit(job))
        busy[worker.connection] = worker, attempt
      first = min(worker.deadline for worker, _ in busy.values())
      ready = multiprocessing.connection.wait(
        list(busy),
        timeout=None
        if first == math.inf
        else max(0.0, first - time.monotonic()),
      )
      late = [c for c, (w, _) in busy.items() if w.deadline < time.monotonic()]
      for connection in {*ready, *late}:
        worker, attempt = busy.pop(connection)
        job = worker.job
        try:
          if connection not in ready:
            raise TimeoutError
          if not worker.started and connection.recv() == _STARTED:
            worker.has_started()
            busy[connection] = worker, attempt
            continue
          good, result = connection.recv()
        except (EOFError, OSError) as e:
          how = worker.end()
          if attempt < ATTEMPTS:
            waiting.append((job, attempt + 1))
          elif isinstance(e, TimeoutError):
            yield job, Lost(f"took more than {limit(job):.0f} s, twice")
          else:
            yield job, Lost(f"its process died, twice ({how})")
          continue
        idle.append(worker)
        if not good:
          raise result
        yield job, result
  finally:
    for worker in [*idle, *(worker for worker, _ in busy.values())]:
      worker.process.kill()
      worker.process.join()
      worker.connection.close()
