"""A prepared data set again, with only the records that are in sync.

What is in sync is sync_filter.py's matter; here records are read, and those
that are kept are packed as prepare.py packs.
"""

import collections
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator

from tqdm import auto as tqdm

from data_prep import prepare, records, set_report, sync_filter
from data_prep.clip_store import write_json
from data_prep.settings import FATES, MIN_FRAMES, Settings
from w2l_jax import checkpoints, dataset

REPORT_FILE = "sync.json"
# So many records at most are laid beside each other's sound.
_MISMATCHED = 500


def filter_set(
  data_dir: str,
  output: str,
  checkpoint: str,
  thresholds: sync_filter.Thresholds,
) -> dict:
  """Measures every record, and packs those that are in sync or can be shifted.

  Args:
    data_dir: of the prepared set; its faces must have the expert's size.
    output: folder of the new set; another one.
    checkpoint: of the expert.
    thresholds: what is kept.

  Returns:
    What is also written to OUTPUT/sync.json: the thresholds, counts, and for
    each record its split, offset, confidence and what was done with it.

  Raises:
    DatasetError, CheckpointError, PrepareError, ValueError: the message says
      what to do.
  """
  if os.path.realpath(data_dir) == os.path.realpath(output):
    raise ValueError(f"{output}: is the set itself; name another --output")
  checkpoint = checkpoints.step_folder(checkpoint)
  judge = sync_filter.load_judge(checkpoint)
  directory = dataset.builder_dir(data_dir, judge.picture_size)
  splits = dataset.open_splits(directory)
  settings = dataset.preparation(directory)
  total = sum(map(len, splits.values()))
  every = -(-total // _MISMATCHED)
  rows, syncs, sample = [], [], []
  for split, example in _examples(splits, "measuring"):
    features = sync_filter.features_of(judge, example)
    if len(rows) % every == 0:
      sample.append(features)
    sync = sync_filter.measure(features, features)
    syncs.append(sync)
    rows.append(
      {
        "id": dataset.text(example["id"]),
        "split": split,
        "offset": sync and sync.offset,
        "confidence": sync and round(sync.confidence, 4),
      }
    )
  mismatched = sync_filter.mismatched(sample)
  thresholds = sync_filter.choose_confidence(thresholds, mismatched)
  key = hashlib.sha256(
    json.dumps(
      [settings, dataset.contents_digest(splits.values()), checkpoint]
      + [dataclasses.asdict(thresholds)],
      sort_keys=True,
    ).encode()
  ).hexdigest()[:12]
  kept_dir = os.path.join(output, "clips", f"sync-{key}")
  with prepare.clear_errors(output):
    shutil.rmtree(kept_dir, ignore_errors=True)
    os.makedirs(kept_dir)
    files = collections.defaultdict(list)
    for i, (split, example) in enumerate(_examples(splits, "shifting")):
      record = records.from_example(example, settings)
      rows[i]["what"], rows[i]["why"], record = _outcome(
        record, syncs[i], thresholds, settings["audio_padding"]
      )
      if record is not None:
        path = os.path.join(kept_dir, f"{i:08d}.npz")
        records.save_records(path, [record])
        files[split].append(path)
    report = {
      "checkpoint": checkpoint,
      "data_dir": data_dir,
      "max_shift": sync_filter.MAX_SHIFT,
      "thresholds": dataclasses.asdict(thresholds),
      "reasons": dict(
        collections.Counter(f"{row['what']}: {row['why']}" for row in rows)
      ),
      "mismatched": [dataclasses.asdict(sync) for sync in mismatched],
      "records": rows,
    }
    if files:
      prepare.pack(dict(files), Settings.from_dict(settings), output)
    # Written last: a set without it, or with another expert's, is not whole.
    write_json(os.path.join(output, REPORT_FILE), report)
    if not files:
      raise prepare.PrepareError(
        f"{data_dir}: of {total} records none is in sync by {checkpoint}; "
        f"{os.path.join(output, REPORT_FILE)} has the figures"
      )
    set_report.write(output, judge.picture_size)
  return report


def _outcome(record, sync, thresholds, audio_padding):
  """Returns (what is done, why, the record to keep or None)."""
  what, why = sync_filter.decide(sync, thresholds)
  if what == sync_filter.KEPT:
    return what, why, record
  if what == sync_filter.SHIFTED:
    if len(record.frames) - abs(sync.offset) >= MIN_FRAMES:
      return what, why, sync_filter.shift(record, sync.offset, audio_padding)
    why = "too short once shifted"
  return sync_filter.DROPPED, why, None


def _examples(
  splits: dict[str, dataset.Split], doing: str
) -> Iterator[tuple[str, dict]]:
  total = sum(map(len, splits.values()))
  with tqdm.tqdm(total=total, desc=doing, unit="clip") as bar:
    for name, split in splits.items():
      for i in range(len(split)):
        yield name, split[i]
        bar.update()


def table(report: dict) -> str:
  """Returns the table of offsets of a report of filter_set, as text."""
  fates = "".join(fate.rjust(9) for fate in FATES)
  return "\n".join(
    [f"offset  {fates}"]
    + [
      f"{name:>6}  " + "".join(str(count).rjust(9) for count in counts)
      for name, counts in set_report.offsets(report)
    ]
  )
