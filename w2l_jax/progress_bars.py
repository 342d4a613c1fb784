"""Progress of long work: a bar in a terminal or notebook, or somebody's own."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import auto as tqdm

T = TypeVar("T")
# Whether a bar is shown; or told (what is done, how many are done, of how many
# or None).  An exception that it raises ends the work.
Progress = bool | Callable[[str, int, int | None], None]


@contextlib.contextmanager
def shown(
  items: Iterable[T], progress: Progress, doing: str, total: int | None
) -> Iterator[Iterable[T]]:
  """Gives `items`, whose progress is shown while they are taken.

  At the end the bar ends its line, so that an error has one of its own.

  Args:
    items: frames.
    progress: see Progress.
    doing: what is done with them.
    total: how many there are, if that is known.
  """
  if callable(progress):
    yield _told(items, progress, doing, total)
    return
  with tqdm.tqdm(
    items, desc=doing, unit="frame", total=total, disable=not progress
  ) as bar:
    yield bar


def _told(items, progress, doing, total) -> Iterator:
  progress(doing, 0, total)
  for done, item in enumerate(items, 1):
    yield item
    progress(doing, done, total)
