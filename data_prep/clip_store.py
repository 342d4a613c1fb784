"""Prepared clips as they are kept: made once, each with a note of how it went.

What a clip becomes is clips.py's matter; which clips there are and what is done
with them, prepare.py's.
"""

import dataclasses
import glob
import hashlib
import json
import os
from collections.abc import Iterator

import cv2

from data_prep import clips, face_tracks, isolation, listing, records
from data_prep.settings import BOXES, SetAside, Settings

# A clip may take --clip_timeout seconds and one more for so many bytes: what
# it lasts at 800 kbit/s.
_BYTES_PER_SECOND = 100_000


@dataclasses.dataclass(frozen=True)
class Job:
  """One clip to be made.

  Attributes:
    folder: of the sources.
    file: path below it.
    clip_id: what its records are called.
    settings: how.
    clip_dir: where it is kept.
  """

  folder: str
  file: str
  clip_id: str
  settings: Settings
  clip_dir: str

  @property
  def path(self) -> str:
    """Where its files are kept, without their suffix.

    The hash of its id keeps names short and folders flat.
    """
    digest = hashlib.sha256(self.clip_id.encode()).hexdigest()[:20]
    return os.path.join(self.clip_dir, digest[:2], digest)

  def stamp(self) -> list[int]:
    """Of what it is made from."""
    paths = [os.path.join(self.folder, self.file)]
    if self.settings.detector.startswith(BOXES):
      boxes = self.settings.detector.removeprefix(BOXES)
      paths.append(os.path.join(boxes, f"{self.clip_id}.csv"))
    return listing.stamp(*paths)


def write_json(path: str, value) -> None:
  """Writes a JSON file, complete or not at all."""
  partial = f"{path}.{os.getpid()}.partial"
  with open(partial, "w") as f:
    json.dump(value, f, indent=1, sort_keys=True)
    f.write("\n")
  os.replace(partial, path)


def read_status(job: Job) -> dict | None:
  """Returns what an earlier run noted of a clip, if it is still valid."""
  try:
    with open(f"{job.path}.json") as f:
      status = json.load(f)
  except (FileNotFoundError, json.JSONDecodeError):
    return None
  if status["stamp"] != job.stamp():
    return None
  if status["reason"] is None and not os.path.exists(f"{job.path}.npz"):
    return None
  return status


def make_clip(job: Job) -> dict:
  """Makes one clip, in a process of its own, and notes how it went."""
  cv2.setNumThreads(1)  # Processes are the parallelism.
  # What a killed run left half-written of this clip.
  for leftover in glob.glob(f"{glob.escape(job.path)}.*.partial"):
    os.remove(leftover)
  laps, made, reason = face_tracks.Laps(), [], None
  stamp = job.stamp()
  try:
    made = clips.make_records(
      job.folder, job.file, job.clip_id, job.settings, laps
    )
  except SetAside as e:
    reason = str(e)
  except Exception as e:
    # A kind of damage that no message knows yet must not stop the others.
    reason = f"unexpected {type(e).__name__}: {e}"
  os.makedirs(os.path.dirname(job.path), exist_ok=True)
  if made:
    with laps.lap("save"):
      records.save_records(f"{job.path}.npz", made)
  return _note(
    job,
    stamp,
    reason,
    frames=sum(len(record.frames) for record in made),
    laps=dict(laps),
  )


def _note(job: Job, stamp: list[int], reason: str | None, **more) -> dict:
  status = {"id": job.clip_id, "stamp": stamp, "reason": reason, **more}
  os.makedirs(os.path.dirname(job.path), exist_ok=True)
  # Written last: a clip without it is not there.
  write_json(f"{job.path}.json", status)
  return status


def note_lost(job: Job, lost: isolation.Lost) -> dict:
  """Notes that a clip took its process along."""
  return _note(
    job,
    job.stamp(),
    f"{lost.reason}; touch the file to have it tried again",
    frames=0,
    laps={},
  )


def make(jobs: list[Job], workers: int, clip_timeout: float) -> Iterator[dict]:
  """Makes clips in processes of this machine.

  Args:
    jobs: the clips.
    workers: processes.
    clip_timeout: seconds that a clip may take, beside those for its size.

  Yields:
    The status of each as it ends.
  """

  def limit(job):
    return clip_timeout + max(0, job.stamp()[0]) / _BYTES_PER_SECOND

  for job, status in isolation.run(make_clip, jobs, workers, limit):
    lost = isinstance(status, isolation.Lost)
    yield note_lost(job, status) if lost else status
