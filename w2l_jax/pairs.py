"""Which video says which speech: pair lists, and pairs by seed.

Lists are the original's (evaluation/test_filelists): two names without suffix
on a line.  `lrs2.txt`, `lrs3.txt` and `lrw.txt` have audio first, ReSyncED's
`random_pairs.txt` and `tts_pairs.txt` have video first: the name does not tell,
so the order is given.
"""

import dataclasses
import os

import numpy as np

ORDERS = ("audio_video", "video_audio")


class PairError(ValueError):
  """A pair list cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class Pair:
  """A face and a speech, by name.

  Attributes:
    face: whose pictures.
    speech: whose sound.
  """

  face: str
  speech: str


def read(path: str, order: str) -> list[Pair]:
  """Reads a pair list.

  Args:
    path: of the list.
    order: one of ORDERS: what the first name of a line is.

  Raises:
    PairError: naming the file and the line.
  """
  if order not in ORDERS:
    raise PairError(f"order is {order!r}, expected one of {ORDERS}")
  try:
    with open(path, encoding="utf-8") as f:
      lines = f.read().splitlines()
  except (OSError, UnicodeDecodeError) as e:
    raise PairError(f"{path}: cannot be read ({e})") from e
  found = []
  for number, line in enumerate(lines, 1):
    names = line.split()
    if not names:
      continue
    if len(names) != 2:
      raise PairError(
        f"{path}: line {number} has {len(names)} words, expected two names: "
        f"{order.replace('_', ' ')}"
      )
    if order == "audio_video":
      names = names[::-1]
    found.append(Pair(face=names[0], speech=names[1]))
  if not found:
    raise PairError(f"{path}: has no pairs")
  return found


def write(path: str, pairs: list[Pair]) -> None:
  """Writes a list, video first; has this name only when complete."""
  partial = f"{path}.{os.getpid()}.partial"
  with open(partial, "w", encoding="utf-8") as f:
    f.writelines(f"{pair.face} {pair.speech}\n" for pair in pairs)
  os.replace(partial, path)


def random_pairs(
  names: list[str], seconds: np.ndarray, count: int | None, seed: int
) -> list[Pair]:
  """Chooses a speech for each of some faces, as the paper's rule has it.

  The speech is of another clip, and no longer than the face's video (paper
  section 4.1); where no other clip is short enough, the shortest one.  A clip
  of no length is nobody's speech.  A single clip says its own.

  Args:
    names: of the clips.
    seconds: [n], how long each is.
    count: how many faces; None: all.
    seed: of the choice.

  Returns:
    At most `count` pairs, every face once.

  """
  seconds = np.asarray(seconds)
  if len(names) == 1:
    return [Pair(names[0], names[0])]
  rng = np.random.default_rng([seed, 0xBA17])
  found = []
  for face in rng.permutation(len(names))[:count]:
    others = np.flatnonzero((np.arange(len(names)) != face) & (seconds > 0))
    if not len(others):
      continue
    short = others[seconds[others] <= seconds[face]]
    speech = (
      rng.choice(short) if len(short) else others[np.argmin(seconds[others])]
    )
    found.append(Pair(names[face], names[speech]))
  return found
