"""A prepared data set on disk: its shards, its index, and how a record is read.

Which windows are taken is window_sampler.py's matter, batches are
input_pipeline.py's.  Written by data_prep; this module only adds the index.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterable

import cv2
import numpy as np
import soundfile
import tensorflow_datasets as tfds
from array_record.python import array_record_module

NAME = "lipsync_dataset"
VERSION = "1.0.0"
SPLITS = ("train", "val", "test")
# What a run may train on: everything, or the clips that an independent judge is
# trained on (`part_records`), or the others.
PARTS = ("all", "judge", "rest")
_JUDGE_CLIPS = 150
PREPARATION_FILE = "preparation.json"
# How much of every shard `contents_digest` reads: so many parts of so many
# bytes, from the first to the last.
_SAMPLES, _SAMPLE_BYTES = 5, 4096


class DatasetError(ValueError):
  """A prepared data set cannot be used; the message says what to do."""


def builder_dir(data_dir: str, image_size: int) -> str:
  """Returns the folder of the shards whose crops have that size."""
  return os.path.join(data_dir, NAME, f"face{image_size}", VERSION)


def index_file(directory: str, split: str) -> str:
  """Returns the path of a split's index."""
  return os.path.join(directory, f"index-{split}.npz")


@dataclasses.dataclass(frozen=True)
class Index:
  """What choosing windows needs to know of every record, in reading order.

  Attributes:
    ids: [n] strings.
    num_frames: [n] pictures in each record.
    num_mel: [n] mel columns in each record.
    column_means: [sum of num_mel] mean over the bands of every mel column.
  """

  ids: np.ndarray
  num_frames: np.ndarray
  num_mel: np.ndarray
  column_means: np.ndarray

  def __len__(self) -> int:
    return len(self.ids)

  @functools.cached_property
  def _ends(self) -> np.ndarray:
    return np.cumsum(self.num_mel)

  def record_column_means(self, i: int) -> np.ndarray:
    """Returns [num_mel[i]], the mean of each mel column of record i."""
    end = self._ends[i]
    return self.column_means[end - self.num_mel[i] : end]

  def take(self, records: np.ndarray) -> "Index":
    """Returns the index of some records, by their numbers."""
    means = [self.record_column_means(i) for i in records]
    return Index(
      self.ids[records],
      self.num_frames[records],
      self.num_mel[records],
      np.concatenate(means),
    )


def part_records(ids: np.ndarray, part: str) -> np.ndarray:
  """Returns the numbers of the records of a part of PARTS, ascending.

  The judge's are the 150 whose ids have the smallest SHA-256: no list has to be
  kept, and every machine has the same.

  Args:
    ids: of all records.
    part: of PARTS.

  Raises:
    DatasetError: if the part has no record, or there is no such part.
  """
  if part not in PARTS:
    raise DatasetError(f"part is {part!r}, expected one of {PARTS}")
  if part == "all":
    return np.arange(len(ids))
  digests = [hashlib.sha256(text(i).encode()).digest() for i in ids]
  order = np.array(sorted(range(len(digests)), key=digests.__getitem__), int)
  chosen = order[:_JUDGE_CLIPS] if part == "judge" else order[_JUDGE_CLIPS:]
  if not len(chosen):
    raise DatasetError(
      f"part {part!r} is empty: the judge's part takes {_JUDGE_CLIPS} records "
      f"and there are {len(order)}; train on all, --config.data.part=all"
    )
  return np.sort(chosen)


@dataclasses.dataclass(frozen=True)
class Clip:
  """A record, its pictures decoded or yet to be.

  Attributes:
    mel: [T_mel, F] float32.
    frames: [T, S, S, 3] uint8, BGR, or the T JPEG files.
  """

  mel: np.ndarray
  frames: np.ndarray | list[bytes]

  def pictures(self, frames: slice) -> np.ndarray:
    """Returns some of the pictures, [T', S, S, 3] uint8, BGR."""
    if isinstance(self.frames, np.ndarray):
      return self.frames[frames]
    return decode_frames({"frames": self.frames}, frames)


class Split:
  """One split: an index, and records by number.  Picklable, safe in threads.

  Attributes:
    directory, name: what was opened.
    index: what choosing windows needs, of the part's records.
    whole_index: the same of all records.
    shards: paths of its files.
  """

  def __init__(
    self, directory: str, name: str, cache_gb: float = 0.0, part: str = "all"
  ):
    """Opens a split and checks that its shards are whole.

    Args:
      directory: of the TFDS builder.
      name: train, val or test.
      cache_gb: gigabytes of decoded pictures that `clip` may keep in memory.
      part: which records, of PARTS.

    Raises:
      DatasetError: if it is missing, empty or damaged.
    """
    self.directory, self.name = directory, name
    self._room = int(cache_gb * 1e9)
    self._kept: dict[int, Clip] = {}
    again = "delete its folder and run launch.prepare_data again"
    if not os.path.exists(os.path.join(directory, "dataset_info.json")):
      others = sorted(
        entry.parent.parent.name.removeprefix("face")
        for entry in pathlib.Path(directory).parent.parent.glob(
          "face*/*/dataset_info.json"
        )
      )
      there = (
        f" (here are faces of {', '.join(others)} pixels)" if others else ""
      )
      raise DatasetError(
        f"{directory}: no prepared data set of this size of faces{there}; make "
        "one with python -m launch.prepare_data --input=VIDEOS "
        "--output=DATA_DIR --image_size=PIXELS"
      )
    try:
      builder = tfds.builder_from_directory(directory)
    except Exception as e:  # TFDS, JSON and protobuf have kinds of their own.
      raise DatasetError(
        f"{directory}: cannot be read ({e}); delete it and run "
        "launch.prepare_data again"
      ) from e
    if name not in builder.info.splits:
      more = (
        "lower --val_fraction and --test_fraction"
        if name == "train"
        else f"raise --{name}_fraction"
      )
      raise DatasetError(
        f"{directory}: the split {name!r} is empty; name clips for it in "
        f"--splits, or {more}, and run launch.prepare_data again, before "
        "training: clips may change splits"
      )
    self.shards = [os.fspath(p) for p in builder.info.splits[name].filepaths]
    _check_shards(builder.info.splits[name])
    try:
      with np.load(index_file(directory, name)) as arrays:
        self.whole_index = Index(**arrays)
    except FileNotFoundError as e:
      raise DatasetError(
        f"{index_file(directory, name)}: missing; {again}"
      ) from e
    except Exception as e:  # zipfile and NumPy have a dozen kinds for damage.
      raise DatasetError(
        f"{index_file(directory, name)}: cannot be read ({e}); {again}"
      ) from e
    self._source = builder.as_data_source(name)
    if len(self._source) != len(self.whole_index):
      raise DatasetError(
        f"{index_file(directory, name)}: has {len(self.whole_index)} records, "
        f"the split {len(self._source)}; {again}"
      )
    try:
      self._numbers = part_records(self.whole_index.ids, part)
    except DatasetError as e:
      raise DatasetError(f"{directory}: split {name!r}: {e}") from e
    self.index = self.whole_index
    if part != "all":
      self.index = self.whole_index.take(self._numbers)

  def __len__(self) -> int:
    return len(self.index)

  def __getitem__(self, i: int) -> dict:
    """Reads record i: the fields of data_prep.clips.Record, frames as JPEG."""
    try:
      return self._source[int(self._numbers[i])]
    except (RuntimeError, ValueError) as e:
      raise DatasetError(
        f"{self.directory}: record {i} ({self.index.ids[i]}) of split "
        f"{self.name!r} cannot be read ({e}); delete that folder and run "
        "launch.prepare_data again"
      ) from e

  def clip(self, i: int) -> Clip:
    """Returns record i with its pictures decoded, while there is room.

    A picture takes ten times as long to decode as to copy.  Two threads may
    decode a clip at the same time: both get it, and it is counted once.
    """
    i = int(i)
    if i in self._kept:
      return self._kept[i]
    record = self[i]
    frames = record["frames"]
    if self._room > 0:
      frames = decode_frames(record)
    clip = Clip(record["mel"], frames)
    if self._room > 0 and self._kept.setdefault(i, clip) is clip:
      self._room -= frames.nbytes + clip.mel.nbytes
    return clip

  def __getstate__(self):
    # Another process fills a cache of its own.
    kept = sum(c.frames.nbytes + c.mel.nbytes for c in self._kept.values())
    return {**self.__dict__, "_kept": {}, "_room": self._room + kept}


def open_splits(directory: str) -> dict[str, Split]:
  """Opens those splits of a data set that are not empty.

  Raises:
    DatasetError: if there is none, or one is damaged.
  """
  found = [
    name for name in SPLITS if os.path.exists(index_file(directory, name))
  ]
  # Where none is there, opening one says why.
  return {name: Split(directory, name) for name in found or SPLITS[:1]}


def _check_shards(info: tfds.core.SplitInfo) -> None:
  """Compares every shard's number of records with what was written.

  A shard that was cut off reads as one with no records, without an error.
  """
  for path, expected in zip(info.filepaths, info.shard_lengths, strict=True):
    path = os.fspath(path)
    try:
      reader = array_record_module.ArrayRecordReader(path)
      found = reader.num_records()
      reader.close()
    except (RuntimeError, ValueError, OSError) as e:
      raise DatasetError(
        f"{path}: cannot be read ({e}); delete its folder and run "
        "launch.prepare_data again"
      ) from e
    if found != expected:
      raise DatasetError(
        f"{path}: has {found} records, expected {expected}: cut off or half-"
        "written; delete its folder and run launch.prepare_data again"
      )


def write_indices(directory: str) -> None:
  """Reads every record once and writes each split's index beside the shards.

  Also the check that everything that was written can be read.
  """
  builder = tfds.builder_from_directory(directory)
  for name in builder.info.splits:
    columns = {"ids": [], "num_frames": [], "num_mel": [], "column_means": []}
    for record in builder.as_data_source(name):
      columns["ids"].append(text(record["id"]))
      columns["num_frames"].append(len(record["frames"]))
      columns["num_mel"].append(len(record["mel"]))
      columns["column_means"].append(record["mel"].mean(axis=1))
    columns["column_means"] = np.concatenate(columns["column_means"])
    path = index_file(directory, name)
    partial = f"{path}.partial"
    with open(partial, "wb") as f:
      np.savez(f, **columns)
    os.replace(partial, path)


def preparation(directory: str) -> dict:
  """Returns the settings that the data set was prepared with."""
  with open(os.path.join(directory, PREPARATION_FILE)) as f:
    return json.load(f)["settings"]


def contents_digest(splits: Iterable[Split]) -> str:
  """Returns a hash of what splits hold, wherever they lie.

  Whichever part of them is used.  Of the index, which has the sound's mean in
  every mel column, and of every shard's size and some of its bytes.  A copy has
  the same; a set that was prepared anew has another, unless it came out the
  same.

  Raises:
    DatasetError: if a shard cannot be read.
  """
  total = hashlib.sha256()
  for split in splits:
    total.update(split.name.encode())
    for field in dataclasses.fields(Index):
      values = getattr(split.whole_index, field.name)
      total.update(f"{field.name} {values.dtype} {values.shape}".encode())
      total.update(np.ascontiguousarray(values).data)
    for path in split.shards:
      try:
        with open(path, "rb") as f:
          size = os.fstat(f.fileno()).st_size
          total.update(f"{os.path.basename(path)} {size}".encode())
          for part in range(_SAMPLES):
            f.seek(max(0, size - _SAMPLE_BYTES) * part // (_SAMPLES - 1))
            total.update(f.read(_SAMPLE_BYTES))
      except OSError as e:
        raise DatasetError(f"{path}: cannot be read ({e})") from e
  return total.hexdigest()


def text(value) -> str:
  """Returns a text field as str: TFDS gives bytes."""
  return value.decode() if isinstance(value, bytes) else str(value)


def decode_frames(record: dict, frames: slice = slice(None)) -> np.ndarray:
  """Decodes some of a record's frames to [T, S, S, 3] uint8, BGR."""
  return np.stack(
    [
      cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
      for data in record["frames"][frames]
    ]
  )


def decode_audio(record: dict) -> np.ndarray:
  """Decodes a record's sound to [samples] float32 at 16 kHz."""
  waveform, _ = soundfile.read(io.BytesIO(record["audio"]), dtype="float32")
  return waveform
