"""From a folder of sources to a data set: making clips, packing, reporting.

Every clip is kept as it is made (clip_store.py), so an interrupted run goes on
where it was, and one more video costs one video.  Processes are isolation.py's,
or those of a Beam runner (beam_pipeline.py).
"""

import collections
import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator

import tensorflow_datasets as tfds
from tqdm import auto as tqdm

from data_prep import (
  beam_pipeline,
  clip_store,
  lipsync_dataset,
  listing,
  records,
  set_report,
)
from data_prep.clip_store import Job, write_json
from data_prep.listing import PrepareError
from data_prep.settings import Settings
from w2l_jax import dataset

# Errors that are not the clip's: the next clip would meet them too.
_FATAL = {
  errno.ENOSPC: "the disk is full",
  errno.EDQUOT: "the quota is used up",
  errno.EROFS: "the file system is read-only",
  errno.EACCES: "writing is not allowed there",
  errno.EPERM: "writing is not allowed there",
  errno.ENOTDIR: "there is a file where a folder should be",
}


@dataclasses.dataclass
class Report:
  """What preparation did, also written to report.json.

  Attributes:
    made: clips made in this run.
    reused: clips that an earlier run had made.
    set_aside: the reason for each source that was not used.
    records: number of records in each split.
    not_listed: sources that no split list names; they are not tried.
    not_found: entries of split lists that have no source.
    kept: clips in all, made now or earlier.
    frames: frames of the clips made in this run.
    seconds: that making them took.
    stages: seconds of processes by what they did in them, added up.
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
  stages: dict[str, float] = dataclasses.field(default_factory=dict)


# --- Making clips -----------------------------------------------------------


def make_clips(
  jobs: list[Job], engine: Callable[[list[Job]], Iterable[dict]]
) -> tuple[dict[str, str], Report]:
  """Makes every clip that is not made yet.

  Args:
    jobs: all clips.
    engine: makes those of a list, yields the status of each.

  Returns:
    ({clip id: file of its records}, a report).
  """
  report, files, missing = Report(), {}, []
  by_id = {job.clip_id: job for job in jobs}
  stages = collections.Counter()

  def note(status):
    job = by_id[status["id"]]
    if status["reason"] is None:
      files[job.clip_id] = f"{job.path}.npz"
    else:
      report.set_aside[job.file] = status["reason"]

  for job in jobs:
    status = clip_store.read_status(job)
    if status is None:
      missing.append(job)
    else:
      note(status)
      report.reused += status["reason"] is None
  start = time.monotonic()
  for status in tqdm.tqdm(
    engine(missing),
    total=len(missing),
    desc="clips",
    unit="clip",
    disable=not missing,
  ):
    note(status)
    report.made += status["reason"] is None
    report.frames += status["frames"]
    stages.update(status["laps"])
  report.seconds = time.monotonic() - start
  report.stages = dict(stages)
  report.kept = len(files)
  return files, report


# --- Packing ----------------------------------------------------------------


def pack(
  files: dict[str, list[str]],
  settings: Settings,
  output: str,
  beam_options: list[str] | None = None,
) -> str:
  """Packs prepared clips into shards, unless the same are packed already.

  Args:
    files: for each split, the files of its clips.
    settings: that they were made with.
    output: folder of the data set.
    beam_options: of a Beam runner that does it; None: this process does.

  Returns:
    The folder of the shards.

  Raises:
    PrepareError: if a prepared clip is damaged.
  """
  directory = dataset.builder_dir(output, settings.image_size)
  contents = {
    split: [[os.path.basename(path), listing.stamp(path)] for path in paths]
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
      beam=beam_options is not None,
    ),
    file_format="array_record",
  )
  download = {}
  if beam_options is not None:
    download["beam_options"] = beam_pipeline.options(beam_options)
  tfds.disable_progress_bar()
  try:
    # It tells of downloads that there are none of.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
          # No fetching, no statistics that would need TensorFlow.
          compute_stats=tfds.download.ComputeStatsMode.SKIP,
          **download,
        )
      )
  except records.DamagedClip as e:
    raise PrepareError(str(e)) from e
  packed = dataset.builder_dir(packing, settings.image_size)
  dataset.write_indices(packed)
  write_json(os.path.join(packed, dataset.PREPARATION_FILE), preparation)
  shutil.rmtree(directory, ignore_errors=True)
  os.makedirs(os.path.dirname(directory), exist_ok=True)
  os.replace(packed, directory)
  shutil.rmtree(packing, ignore_errors=True)
  return directory


# --- All of it --------------------------------------------------------------


def prepare(
  folder: str,
  output: str,
  settings: Settings,
  *,
  splits_folder: str | None = None,
  val_fraction: float = 0.05,
  test_fraction: float = 0.05,
  workers: int = 1,
  clip_timeout: float = 120.0,
  beam_options: list[str] | None = None,
) -> Report:
  """Prepares a folder of videos; see launch/prepare_data.py for the arguments.

  Raises:
    PrepareError: if nothing can be prepared, or not written.
  """
  ids = listing.list_sources(folder)
  not_listed, not_found = [], []
  if splits_folder:
    split_of, not_listed, not_found = listing.assign(
      ids, listing.read_splits(splits_folder)
    )
  else:
    split_of = {
      i: listing.hash_split(i, val_fraction, test_fraction) for i in ids
    }
  clip_dir = os.path.join(output, "clips", settings.key())
  jobs = [
    Job(folder, ids[i], i, settings, clip_dir) for i in ids if i in split_of
  ]
  with clear_errors(output):
    os.makedirs(clip_dir, exist_ok=True)
    if beam_options is None:
      engine = functools.partial(
        clip_store.make, workers=workers, clip_timeout=clip_timeout
      )
    else:
      engine = functools.partial(
        beam_pipeline.make, beam_options=beam_options, clip_timeout=clip_timeout
      )
    files, report = make_clips(jobs, engine)
    report.not_listed, report.not_found = not_listed, not_found
    assigned: dict[str, list[str]] = {}
    for split in dataset.SPLITS:
      paths = [files[i] for i in sorted(files) if split_of[i] == split]
      if paths:
        assigned[split] = paths
    report_file = os.path.join(output, "report.json")
    write_json(report_file, dataclasses.asdict(report))
    if not assigned:
      reasons = collections.Counter(report.set_aside.values()).most_common(3)
      why = "; ".join(f"{count} x {reason}" for reason, count in reasons)
      raise PrepareError(
        f"{folder}: of {len(jobs)} sources none gave a clip: {why}"
      )
    directory = pack(assigned, settings, output, beam_options)
    for split in assigned:
      report.records[split] = len(dataset.Split(directory, split))
    write_json(report_file, dataclasses.asdict(report))
    set_report.write(output, settings.image_size)
  return report


@contextlib.contextmanager
def clear_errors(output: str) -> Iterator[None]:
  """Says in one sentence why a folder cannot be written."""
  try:
    yield
  except OSError as e:
    if e.errno not in _FATAL:
      raise
    raise PrepareError(
      f"{e.filename or output}: cannot be written: {_FATAL[e.errno]}; what is "
      "made so far is kept, so mend that and run the same command again, or "
      "name another --output"
    ) from e
