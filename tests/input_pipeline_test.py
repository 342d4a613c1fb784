"""Batches against a direct reading of the records that they are made of."""

import itertools
import pathlib
import shutil

import cv2
import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import SETTINGS

from w2l_jax import dataset
from w2l_jax.dataset import DatasetError, Split
from w2l_jax.input_pipeline import make_batches, train_batches
from w2l_jax.window_sampler import WindowSampler, WindowSpec

SIZE = SETTINGS.image_size
SPEC = WindowSpec()
OTHER_SPEC = WindowSpec(
  frames=3,
  mel_columns=10,
  frame_mel_offset=0,
  min_negative_distance=4,
  min_reference_distance=4,
)
BATCH = 6
STAGES = ("expert", "generator", "two_way")
KEYS = {
  "expert": {"frames", "mel", "in_sync"},
  "generator": {"frames", "mel", "other", "frame_mels"},
  "two_way": {"frames", "mel", "other"},
}


@pytest.fixture(scope="module")
def split(data_dir) -> Split:
  return Split(dataset.builder_dir(data_dir, SIZE), "train")


@pytest.fixture(scope="module")
def truth(data_dir) -> list[tuple[np.ndarray, np.ndarray]]:
  """Every record's (pictures, mel) in order, by TFDS and OpenCV alone."""
  builder = tfds.builder_from_directory(
    str(pathlib.Path(data_dir) / "lipsync_dataset" / f"face{SIZE}" / "1.0.0")
  )
  return [
    (
      np.stack(
        [
          cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
          for jpeg in record["frames"]
        ]
      ),
      record["mel"],
    )
    for record in builder.as_data_source("train")
  ]


def batches(split, stage, spec=SPEC, seed=3, last_step=4, **kwargs) -> list:
  return list(
    make_batches(
      split,
      spec,
      stage,
      **{
        "seed": seed,
        "batch_size": BATCH,
        "last_step": last_step,
        "num_threads": 1,
        **kwargs,
      },
    )
  )


def check_same(found, expected) -> None:
  assert len(found) == len(expected)
  for a, b in zip(found, expected, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      assert a[key].dtype == b[key].dtype, key
      np.testing.assert_array_equal(a[key], b[key], err_msg=key)


# --- What is in a batch ------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, OTHER_SPEC], ids=["usual", "other"])
@pytest.mark.parametrize("stage", STAGES)
def test_contents_are_the_rows_windows(split, truth, stage, spec):
  sampler = WindowSampler(split.index, spec, stage)
  found = batches(split, stage, spec)
  assert len(found) == 4
  t, m, offset = spec.frames, spec.mel_columns, spec.frame_mel_offset
  for step, batch in enumerate(found):
    assert set(batch) == KEYS[stage]
    rows = sampler.rows(3, step, BATCH)
    for i in range(BATCH):
      pictures, mel = truth[rows.record[i]]
      begin = int(rows.target[i])
      np.testing.assert_array_equal(
        batch["frames"][i], pictures[begin : begin + t]
      )
      start = int(80 * int(rows.audio[i]) / 25)
      np.testing.assert_array_equal(batch["mel"][i], mel[start : start + m])
      if stage == "expert":
        assert batch["in_sync"][i] == rows.in_sync[i]
        continue
      begin = int(rows.other[i])
      np.testing.assert_array_equal(
        batch["other"][i], pictures[begin : begin + t]
      )
      if stage == "generator":
        for k in range(t):
          start = int(80 * (int(rows.target[i]) + k + offset) / 25)
          np.testing.assert_array_equal(
            batch["frame_mels"][i, k], mel[start : start + m]
          )


def places(window, sequences, starts) -> set[tuple[int, int]]:
  """Every (record, k) where sequences[record][starts(k):][:len] is window."""
  n = len(window)
  found = set()
  for record, sequence in enumerate(sequences):
    for k in itertools.count():
      begin = starts(k)
      if begin + n > len(sequence):
        break
      if np.array_equal(sequence[begin : begin + n], window):
        found.add((record, k))
  return found


@pytest.mark.parametrize("stage", STAGES)
def test_rules_hold_without_asking_the_sampler(split, truth, stage):
  """Looks for every window of a batch in every record, at every frame."""
  pictures = [p for p, _ in truth]
  mels = [mel for _, mel in truth]
  found = batches(split, stage, last_step=5)
  used, labels = set(), []
  for batch in found:
    for i in range(BATCH):
      frames = places(batch["frames"][i], pictures, lambda k: k)
      heard = places(batch["mel"][i], mels, lambda k: int(80 * k / 25))
      # The pictures and the noise never repeat.
      ((record, at),) = frames
      ((record_heard, at_heard),) = heard
      assert record == record_heard
      used.add(record)
      if stage == "expert":
        labels.append(batch["in_sync"][i])
        assert (at == at_heard) == bool(batch["in_sync"][i])
        continue
      assert at == at_heard
      ((record_other, at_other),) = places(
        batch["other"][i], pictures, lambda k: k
      )
      assert record_other == record and at_other != at
      if stage == "generator":
        for k in range(5):
          begin = int(80 * (at + k - 1) / 25)
          np.testing.assert_array_equal(
            batch["frame_mels"][i, k], mels[record][begin : begin + 16]
          )
  assert used == {0, 1, 2, 3}
  if stage == "expert":
    assert set(labels) == {0.0, 1.0}


@pytest.mark.parametrize("stage", STAGES)
def test_shapes_and_types(split, stage):
  (batch,) = batches(split, stage, last_step=1)
  expected = {
    "frames": ((BATCH, 5, SIZE, SIZE, 3), np.uint8),
    "other": ((BATCH, 5, SIZE, SIZE, 3), np.uint8),
    "mel": ((BATCH, 16, 80), np.float32),
    "frame_mels": ((BATCH, 5, 16, 80), np.float32),
    "in_sync": ((BATCH,), np.float32),
  }
  assert set(batch) == KEYS[stage]
  for key, value in batch.items():
    assert type(value) is np.ndarray
    assert (value.shape, value.dtype) == expected[key], key


def test_seeds_and_steps_differ(split):
  one, two = batches(split, "expert", last_step=2)
  assert not np.array_equal(one["mel"], two["mel"])
  (other,) = batches(split, "expert", seed=4, last_step=1)
  assert not np.array_equal(one["mel"], other["mel"])


# --- The same batches whoever makes them -------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_threads_do_not_matter(split, stage):
  one = batches(split, stage, last_step=8)
  check_same(batches(split, stage, last_step=8, num_threads=4), one)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_worker_processes_do_not_matter(split, num_workers):
  # Steps 2 to 6: an odd number of them, not from the first.
  found = batches(
    split,
    "generator",
    first_step=2,
    last_step=7,
    num_workers=num_workers,
    num_threads=2,
  )
  check_same(found, batches(split, "generator", last_step=7)[2:])


@pytest.mark.parametrize("first_step", [1, 3, 6])
def test_a_later_start_skips_batches(split, first_step):
  whole = batches(split, "expert", last_step=6)
  later = batches(split, "expert", first_step=first_step, last_step=6)
  check_same(later, whole[first_step:])
  # Where it ends does not change what comes before.
  check_same(batches(split, "expert", last_step=2), whole[:2])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("count", [2, 3])
def test_processes_rows_make_up_the_global_batch(split, stage, count):
  whole = batches(split, stage)
  parts = [
    batches(split, stage, local_rows=rows)
    for rows in np.split(np.arange(BATCH), count)
  ]
  for step, expected in enumerate(whole):
    for key, value in expected.items():
      rows = [part[step][key] for part in parts]
      assert {len(r) for r in rows} == {BATCH // count}
      np.testing.assert_array_equal(np.concatenate(rows), value)


def test_train_batches_follow_the_config(split):
  config = ml_collections.ConfigDict(
    {
      "seed": 3,
      "data": {"batch_size": BATCH, "num_threads": 2, "num_workers": 0},
      "train": {"num_steps": 4},
    }
  )
  start = train_batches(split, SPEC, "generator", config)
  check_same(list(start(0)), batches(split, "generator"))
  check_same(list(start(3)), batches(split, "generator")[3:])


# --- Errors ------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_usable_raises_at_once(split, stage):
  specs = [WindowSpec(frames=1000)]
  if stage != "generator":
    specs.append(WindowSpec(speech_only=True, speech_threshold=4.5))
  for spec in specs:
    # Not only when the first batch is asked for.
    with pytest.raises(DatasetError, match="none of the 4 records"):
      make_batches(split, spec, stage, seed=0, batch_size=BATCH, last_step=10)


def test_damage_met_while_reading_is_named(data_dir, tmp_path):
  folder = pathlib.Path(dataset.builder_dir(str(tmp_path), SIZE))
  shutil.copytree(dataset.builder_dir(data_dir, SIZE), folder)
  (shard,) = folder.glob("*train.array_record*")
  data = bytearray(shard.read_bytes())
  middle = len(data) // 3
  data[middle : middle + 3000] = bytes(3000)
  shard.write_bytes(data)
  split = Split(str(folder), "train")
  with pytest.raises(DatasetError, match="record .*someone/clip"):
    batches(split, "expert", last_step=20, num_threads=2)
