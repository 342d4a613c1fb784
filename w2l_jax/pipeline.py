"""Stages of work that go on side by side: generators in threads, and a clock.

A stage is a generator function that takes the iterator of the one before it.
Its queue is bounded, so a fast stage waits for a slow one and memory does not
grow.  Knows nothing of pictures.
"""

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# How soon a stage that waits to hand something on notices that nobody wants it.
_PATIENCE_SECONDS = 0.1


def in_thread(items: Iterable[T], depth: int) -> Iterator[T]:
  """Yields what `items` yields, which a thread takes ahead of time.

  An exception of `items` is raised where its item would have come.  When the
  iterator is closed (an exception elsewhere, Ctrl-C), the thread ends after the
  item in hand and closes `items`, which may be such an iterator again.

  Args:
    items: is used by that thread alone.
    depth: how many items may wait.
  """
  waiting: queue.Queue = queue.Queue(depth)
  closed = threading.Event()

  def hand_on(message):
    while not closed.is_set():
      with contextlib.suppress(queue.Full):
        waiting.put(message, timeout=_PATIENCE_SECONDS)
        return

  def work():
    iterator = iter(items)
    try:
      try:
        for item in iterator:
          hand_on((item, None, False))
          if closed.is_set():
            return
      finally:
        if hasattr(iterator, "close"):
          iterator.close()
    except BaseException as e:  # It belongs to who takes the items.
      hand_on((None, e, True))
    else:
      hand_on((None, None, True))

  thread = threading.Thread(target=work, daemon=True)
  thread.start()
  try:
    while True:
      item, error, ended = waiting.get()
      if error is not None:
        raise error
      if ended:
        return
      yield item
      del item  # A frame should not outlive its use while we wait.
  finally:
    closed.set()
    thread.join()


def stage(
  work: Callable[[Iterator], Iterator[T]], items: Iterator, depth: int
) -> Iterator[T]:
  """Yields what `work(items)` yields, in a thread, and closes `items` after it.

  Without that, an exception of `work` would keep `items`, and its thread, for
  as long as somebody keeps its traceback.

  Args:
    work: the stage.
    items: of the stage before, a generator.
    depth: as for `in_thread`.
  """

  def run():
    with contextlib.closing(items):
      yield from work(items)

  return in_thread(run(), depth)


class Clock:
  """Adds up the seconds that stages work, without their waiting for others."""

  def __init__(self):
    self.seconds: dict[str, float] = collections.defaultdict(float)

  @contextlib.contextmanager
  def __call__(self, stage: str) -> Iterator[None]:
    """Adds the block's time to a stage; each has one thread at a time."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self.seconds[stage] += time.perf_counter() - start

  def items(self, stage: str, items: Iterable[T]) -> Iterator[T]:
    """Yields the items, and adds the time that each took to come."""
    iterator = iter(items)
    try:
      while True:
        with self(stage):
          item = next(iterator, _END)
        if item is _END:
          return
        yield item
        del item
    finally:
      if hasattr(iterator, "close"):
        iterator.close()


_END = object()
