"""Which sources a folder holds, and which split each belongs to.

Sources are videos of any kind and the folders of crops that Wav2Lip's
preprocess.py leaves; any layout, GRID's and LRS2's (SPEAKER/CLIP.mp4) among
them.  What is made of a source is clips.py's matter.
"""

import collections
import contextlib
import hashlib
import os

from data_prep import face_tracks
from w2l_jax import dataset

# LRS2 and GRID keep what is said in a file beside or near each video.
TRANSCRIPTS = (".txt", ".align")


class PrepareError(ValueError):
  """Preparation cannot go on; the message says why and what to do."""


def list_sources(folder: str) -> dict[str, str]:
  """Lists every source below a folder as {clip id: path below the folder}.

  The id is the path without its suffix, or with it where two files would
  share one id.  A folder of crops is one source, its id its path.  Hidden files
  and folders are left out, and so are transcripts (.txt and .align); other
  files that are no videos are not: they end up set aside with that reason.

  Raises:
    PrepareError: if there is no such folder, it holds no files, or the name of
      one is not UTF-8.
  """
  if not os.path.isdir(folder):
    raise PrepareError(
      f"{folder}: no such folder; --input names that of the videos"
    )
  files, crops = [], set()
  for parent, folders, names in os.walk(folder, followlinks=True):
    folders[:] = sorted(f for f in folders if not f.startswith("."))
    if face_tracks.CROPS_SOUND in names and any(
      map(face_tracks.CROP_NAME.fullmatch, names)
    ):
      crops.add(os.path.relpath(parent, folder))
      continue
    files += [
      os.path.relpath(os.path.join(parent, name), folder)
      for name in names
      if not name.startswith(".") and not name.endswith(TRANSCRIPTS)
    ]
  files += crops
  if not files:
    raise PrepareError(
      f"{folder}: has no files; --input names the folder of videos"
    )
  for file in files:
    if file.encode(errors="replace").decode() != file:
      raise PrepareError(
        f"{folder}: the name of {ascii(file)} is not UTF-8; rename it"
      )

  def stem_of(file):
    return file if file in crops else os.path.splitext(file)[0]

  stems = collections.Counter(map(stem_of, files))
  stems.update(files)  # a.mp4.mkv must not become the a.mp4 that is there.
  ids = {}
  for file in sorted(files):
    stem = stem_of(file)
    ids[(stem if stems[stem] == 1 else file).replace(os.sep, "/")] = file
  return ids


def read_splits(folder: str) -> dict[str, list[str]]:
  """Reads train.txt, val.txt and test.txt: a clip id first on each line.

  So are LRS2's lists, and the filelists of those who trained Wav2Lip.

  Raises:
    PrepareError: if there is none of them, or a clip is in two.
  """
  splits = {}
  for split in dataset.SPLITS:
    path = os.path.join(folder, f"{split}.txt")
    if os.path.exists(path):
      with open(path) as f:
        lines = [line.split()[0] for line in f if line.strip()]
      splits[split] = [line.removesuffix(".mp4") for line in lines]
  if not splits:
    raise PrepareError(
      f"{folder}: has none of train.txt, val.txt, test.txt; --splits names "
      "the folder that holds them"
    )
  where = {}
  for split, ids in splits.items():
    for clip_id in ids:
      if where.setdefault(clip_id, split) != split:
        raise PrepareError(
          f"{folder}: {clip_id} is listed in {where[clip_id]}.txt and in "
          f"{split}.txt"
        )
  return splits


def hash_split(clip_id: str, val_fraction: float, test_fraction: float) -> str:
  """Assigns a clip to a split by its id alone, so that it never moves."""
  digest = hashlib.sha256(clip_id.encode()).digest()
  u = int.from_bytes(digest[:8], "big") / 2**64
  if u < test_fraction:
    return "test"
  return "val" if u < test_fraction + val_fraction else "train"


def assign(
  ids: dict[str, str], listed: dict[str, list[str]]
) -> tuple[dict[str, str], list[str], list[str]]:
  """Matches sources with split lists.

  Args:
    ids: of list_sources.
    listed: of read_splits.

  Returns:
    ({clip id: split}, ids that no list has, entries that no source has).

  Raises:
    PrepareError: if no entry has a source.
  """
  wanted = {i: split for split, entries in listed.items() for i in entries}
  assigned = {i: wanted[i] for i in ids if i in wanted}
  if not assigned:
    entry = min(wanted, default="")
    below = [i for i in ids if entry and i.endswith(f"/{entry}")]
    hint = (
      f"; {entry} is there as {below[0]}: name the folder "
      f"{below[0].removesuffix(entry)} below --input instead"
      if below
      else f": there is {min(ids)}, they name {entry or 'nothing'}"
    )
    raise PrepareError(
      f"the split lists name none of the {len(ids)} sources{hint}"
    )
  missing = sorted(set(wanted) - set(ids))
  return assigned, sorted(set(ids) - set(wanted)), missing


def stamp(*paths: str) -> list[int]:
  """Sizes and times of files or folders: changed ones are prepared again."""
  found = []
  for path in paths:
    try:
      with os.scandir(path) if os.path.isdir(path) else _nothing() as entries:
        stats = [os.stat(path), *(entry.stat() for entry in entries)]
    except OSError:
      found += [-1, -1]  # A link to nowhere: a file like others, set aside.
      continue
    found += [
      sum(stat.st_size for stat in stats),
      max(stat.st_mtime_ns for stat in stats),
    ]
  return found


def _nothing():
  return contextlib.nullcontext(())
