"""Signals that ask a run to stop: SIGINT and SIGTERM, collected.

Who trains looks at them between steps.  The first asks for a checkpoint and an
end; a later one leaves at once.  Launchers enter `collected` as early as they
can, the loop enters it again: there is one collection.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Within so many seconds a signal is the same one delivered twice: to a process
# group, and passed on by its launcher.
_REPEAT_SECONDS = 3.0

_current: list | None = None


def _watch(reader: int, received: list, leave_at_once: bool) -> None:
  """Reads signals' numbers from a pipe until it is closed.

  In a thread: Python's own handlers wait while the main thread compiles, or
  hangs in a collective.
  """
  first = None
  while data := os.read(reader, 1):
    if data[0] not in SIGNALS:
      continue
    received.append(data[0])
    now = time.monotonic()
    first = first or now
    if leave_at_once and now - first > _REPEAT_SECONDS:
      os._exit(128 + data[0])


@contextlib.contextmanager
def collected(leave_at_once: bool = False) -> Iterator[list]:
  """Collects the numbers of SIGINT and SIGTERM while it lasts.

  Args:
    leave_at_once: whether a later signal ends the process there and then,
      whatever it does.  If not, it takes the effect that it had before: in a
      notebook, KeyboardInterrupt.

  Yields:
    The list of the numbers received so far, which grows.  It stays empty
    outside the main thread, where signals cannot be had.
  """
  global _current
  if _current is not None:
    yield _current
    return
  if threading.current_thread() is not threading.main_thread():
    yield []
    return
  received: list = []
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  watcher = threading.Thread(
    target=_watch, args=(reader, received, leave_at_once), daemon=True
  )
  watcher.start()
  previous = {}

  def restore():
    for number, handler in previous.items():
      signal.signal(number, handler)

  def handler(number, frame):
    del number, frame
    if not leave_at_once:
      restore()

  old_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  for number in SIGNALS:
    previous[number] = signal.signal(number, handler)
  _current = received
  try:
    yield received
  finally:
    _current = None
    restore()
    signal.set_wakeup_fd(old_writer)
    os.close(writer)  # Ends the watcher.
    watcher.join()
    os.close(reader)


def ignore() -> None:
  """Makes a worker process deaf to them: its parent decides when it ends."""
  for number in SIGNALS:
    signal.signal(number, signal.SIG_IGN)
