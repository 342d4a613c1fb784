"""From a folder of videos to a data set: listing, making clips, packing.

Every clip is kept as it is made, so an interrupted run goes on where it was,
and one more video costs one video.  What one clip becomes is in clips.py.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import threading
import time

import cv2
import tensorflow_datasets as tfds
import tqdm

from data_prep import clips, lipsync_dataset
from w2l_jax import dataset


class PrepareError(ValueError):
  """Preparation cannot go on; the message says why and what to do."""


@dataclasses.dataclass
class Report:
  """What preparation did, also written to report.json.

  Attributes:
    made: clips made in this run.
    reused: clips that an earlier run had made.
    set_aside: the reason for each video that was not used.
    records: number of records in each split.
    not_listed: videos that no split list names.
    not_found: entries of split lists that no video has.
    kept: clips in all, made now or earlier.
    frames: frames of the clips made in this run.
    seconds: that making them took.
  """

  made: int = 0
  reused: int = 0
  set_aside: dict[str, str] = dataclasses.field(default_factory=dict)
  records: dict[str, int] = dataclasses.field(default_factory=dict)
  not_listed: list[str] = dataclasses.field(default_factory=list)
  not_found: list[str] = dataclasses.field(default_factory=list)
  kept: int = 0
  frames: int = 0
  seconds: float = 0.0


def list_videos(folder: str) -> dict[str, str]:
  """Lists every file below a folder as {clip id: path below the folder}.

  The id is the path without its suffix, or with it where two files would
  share one id.  Hidden files and folders are left out; files that are no
  videos are not: they end up set aside with that reason.

  Raises:
    PrepareError: if there is no such folder, it holds no files, or the name of
      one is not UTF-8.
  """
  if not os.path.isdir(folder):
    raise PrepareError(
      f"{folder}: no such folder; --input names that of the videos"
    )
  files = []
  for parent, folders, names in os.walk(folder, followlinks=True):
    folders[:] = sorted(f for f in folders if not f.startswith("."))
    files += [
      os.path.relpath(os.path.join(parent, name), folder)
      for name in names
      if not name.startswith(".")
    ]
  if not files:
    raise PrepareError(
      f"{folder}: has no files; --input names the folder of videos"
    )
  for file in files:
    if file.encode(errors="replace").decode() != file:
      raise PrepareError(
        f"{folder}: the name of {ascii(file)} is not UTF-8; rename it"
      )
  stems = collections.Counter(os.path.splitext(file)[0] for file in files)
  stems.update(files)  # a.mp4.mkv must not become the a.mp4 that is there.
  ids = {}
  for file in sorted(files):
    stem = os.path.splitext(file)[0]
    ids[(stem if stems[stem] == 1 else file).replace(os.sep, "/")] = file
  return ids


def read_splits(folder: str) -> dict[str, list[str]]:
  """Reads train.txt, val.txt and test.txt: a clip id first on each line.

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


# --- Making clips -----------------------------------------------------------


def _stamp(path: str) -> list[int]:
  """Size and time of a source: a changed file is prepared again."""
  try:
    stat = os.stat(path)
  except OSError:
    return [-1, -1]  # A link to nowhere: a file like others, set aside.
  return [stat.st_size, stat.st_mtime_ns]


def _clip_file(clip_dir: str, clip_id: str) -> str:
  """Where a clip is kept: its hash keeps names short and folders flat."""
  digest = hashlib.sha256(clip_id.encode()).hexdigest()[:20]
  return os.path.join(clip_dir, digest[:2], digest)


def _write_json(path: str, value) -> None:
  partial = f"{path}.{os.getpid()}.partial"
  with open(partial, "w") as f:
    json.dump(value, f, indent=1, sort_keys=True)
    f.write("\n")
  os.replace(partial, path)


def _read_status(clip_dir: str, clip_id: str, stamp: list[int]) -> dict | None:
  """Returns what an earlier run noted of a clip, if it is still valid."""
  path = _clip_file(clip_dir, clip_id)
  try:
    with open(f"{path}.json") as f:
      status = json.load(f)
  except (FileNotFoundError, json.JSONDecodeError):
    return None
  if status["stamp"] != stamp:
    return None
  if status["reason"] is None and not os.path.exists(f"{path}.npz"):
    return None
  return status


def _make_clip(job: tuple) -> dict:
  """Makes one clip in a worker process and notes how it went."""
  folder, file, clip_id, settings, clip_dir = job
  cv2.setNumThreads(1)  # Processes are the parallelism.
  path = _clip_file(clip_dir, clip_id)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  status = {
    "id": clip_id,
    "stamp": _stamp(os.path.join(folder, file)),
    "reason": None,
    "frames": 0,
  }
  try:
    records = clips.make_records(folder, file, clip_id, settings)
    clips.save_records(f"{path}.npz", records)
    status["frames"] = sum(len(record.frames) for record in records)
  except clips.SetAside as e:
    status["reason"] = str(e)
  # Written last: a clip without it is not there.
  _write_json(f"{path}.json", status)
  return status


def _end_with_parent() -> None:
  """Ends this worker when its parent is killed: else it would wait for ever."""

  def wait():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def make_clips(
  folder: str,
  ids: dict[str, str],
  settings: clips.Settings,
  clip_dir: str,
  workers: int,
) -> tuple[dict[str, str], Report]:
  """Makes every clip that is not made yet.

  Args:
    folder: of the videos.
    ids: of list_videos.
    settings: of the clips.
    clip_dir: where clips are kept.
    workers: processes.

  Returns:
    ({clip id: file of its records}, a report).
  """
  report, files, jobs = Report(), {}, []
  os.makedirs(clip_dir, exist_ok=True)

  def note(clip_id, status):
    if status["reason"] is None:
      files[clip_id] = f"{_clip_file(clip_dir, clip_id)}.npz"
    else:
      report.set_aside[ids[clip_id]] = status["reason"]

  for clip_id, file in ids.items():
    status = _read_status(clip_dir, clip_id, _stamp(os.path.join(folder, file)))
    if status is None:
      jobs.append((folder, file, clip_id, settings, clip_dir))
    else:
      note(clip_id, status)
      report.reused += status["reason"] is None
  start = time.monotonic()
  # Spawned, not forked: JAX and PyAV have threads that a fork would lose.
  with concurrent.futures.ProcessPoolExecutor(
    max_workers=max(1, min(workers, len(jobs))),
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_end_with_parent,
  ) as pool:
    try:
      for status in tqdm.tqdm(
        pool.map(_make_clip, jobs, chunksize=1),
        total=len(jobs),
        desc="clips",
        unit="clip",
        disable=not jobs,
      ):
        note(status["id"], status)
        report.made += status["reason"] is None
        report.frames += status["frames"]
    except BaseException as e:
      pool.shutdown(wait=False, cancel_futures=True)
      if isinstance(e, concurrent.futures.process.BrokenProcessPool):
        raise PrepareError(
          f"{folder}: a worker process died (out of memory, or a crash in a "
          "decoder); the clips made so far are kept, run the same command "
          "again, with fewer --workers if memory is short"
        ) from e
      raise
  report.seconds = time.monotonic() - start
  report.kept = len(files)
  return files, report


# --- Packing ----------------------------------------------------------------


def pack(
  files: dict[str, list[str]], settings: clips.Settings, output: str
) -> str:
  """Packs prepared clips into shards, unless the same are packed already.

  Args:
    files: for each split, the files of its clips.
    settings: that they were made with.
    output: folder of the data set.

  Returns:
    The folder of the shards.

  Raises:
    PrepareError: if a prepared clip is damaged.
  """
  directory = dataset.builder_dir(output, settings.image_size)
  contents = {
    split: [[os.path.basename(path), _stamp(path)] for path in paths]
    for split, paths in files.items()
  }
  digest = hashlib.sha256(
    json.dumps(contents, sort_keys=True).encode()
  ).hexdigest()
  preparation = {
    "settings": json.loads(settings.as_json()),
    "contents_sha256": digest,
  }
  preparation_file = os.path.join(directory, dataset.PREPARATION_FILE)
  try:
    with open(preparation_file) as f:
      if json.load(f) == preparation:
        return directory
  except (FileNotFoundError, json.JSONDecodeError):
    pass
  # Packed under another root and moved when whole.
  packing = os.path.join(output, ".packing")
  shutil.rmtree(packing, ignore_errors=True)
  builder = lipsync_dataset.LipsyncDataset(
    data_dir=packing,
    config=lipsync_dataset.LipsyncConfig(
      name=f"face{settings.image_size}",
      description=f"{settings.image_size}-pixel face crops",
      splits=files,
      settings=settings,
    ),
    file_format="array_record",
  )
  tfds.disable_progress_bar()
  try:
    # It tells of downloads that there are none of.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
          # No fetching, no statistics that would need TensorFlow.
          compute_stats=tfds.download.ComputeStatsMode.SKIP
        )
      )
  except clips.DamagedClip as e:
    raise PrepareError(str(e)) from e
  packed = dataset.builder_dir(packing, settings.image_size)
  dataset.write_indices(packed)
  _write_json(os.path.join(packed, dataset.PREPARATION_FILE), preparation)
  shutil.rmtree(directory, ignore_errors=True)
  os.makedirs(os.path.dirname(directory), exist_ok=True)
  os.replace(packed, directory)
  shutil.rmtree(packing, ignore_errors=True)
  return directory


def prepare(
  folder: str,
  output: str,
  settings: clips.Settings,
  *,
  splits_folder: str | None = None,
  val_fraction: float = 0.05,
  test_fraction: float = 0.05,
  workers: int = 1,
) -> Report:
  """Prepares a folder of videos; see launch/prepare_data.py for the arguments.

  Raises:
    PrepareError: if nothing can be prepared.
  """
  ids = list_videos(folder)
  listed = read_splits(splits_folder) if splits_folder else None
  clip_dir = os.path.join(output, "clips", settings.key())
  files, report = make_clips(folder, ids, settings, clip_dir, workers)

  assigned: dict[str, list[str]] = collections.defaultdict(list)
  if listed is None:
    for clip_id in sorted(files):
      split = hash_split(clip_id, val_fraction, test_fraction)
      assigned[split].append(files[clip_id])
  else:
    for split, clip_ids in listed.items():
      assigned[split] = [files[i] for i in sorted(set(clip_ids) & set(files))]
    everything = set().union(*listed.values())
    report.not_listed = sorted(set(ids) - everything)
    report.not_found = sorted(everything - set(ids))
  assigned = {split: paths for split, paths in assigned.items() if paths}
  _write_json(os.path.join(output, "report.json"), dataclasses.asdict(report))
  if not assigned:
    reasons = collections.Counter(report.set_aside.values()).most_common(3)
    why = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    raise PrepareError(
      f"{folder}: of {len(ids)} files none gave a clip for a split: "
      + (why or "the split lists name none of them")
    )
  directory = pack(assigned, settings, output)
  for split in assigned:
    report.records[split] = len(dataset.Split(directory, split))
  _write_json(os.path.join(output, "report.json"), dataclasses.asdict(report))
  return report
