"""The data set on disk: what other readers find in it, and what damage does."""

import hashlib
import json
import os
import pathlib
import pickle
import shutil

import cv2
import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import CLIP_SECONDS, SETTINGS, babble

from data_prep import records
from w2l_jax import audio, dataset

SIZE = SETTINGS.image_size
SPLITS = {
  "train": [f"someone/clip{i}" for i in range(4)],
  "val": ["someone/clip4"],
  "test": ["someone/clip5"],
}
AGAIN = "run launch.prepare_data again"


def builder_dir(data_dir) -> pathlib.Path:
  return pathlib.Path(data_dir) / "lipsync_dataset" / f"face{SIZE}" / "1.0.0"


@pytest.fixture(scope="module")
def prepared(data_dir) -> dict[str, records.Record]:
  """{id: record} as the clips were made, before they were packed."""
  made = {}
  for path in pathlib.Path(data_dir).glob("clips/*/*/*.npz"):
    made |= {record.id: record for record in records.load_records(str(path))}
  assert len(made) == len(CLIP_SECONDS)
  return made


@pytest.fixture
def copy(data_dir, tmp_path) -> pathlib.Path:
  """The shards' folder of a copy that may be damaged."""
  target = builder_dir(tmp_path)
  shutil.copytree(builder_dir(data_dir), target)
  return target


def check_record(record: dict, made: records.Record) -> None:
  """A record as TFDS reads it equals the prepared clip, bit for bit."""
  assert record["id"].decode() == made.id
  assert [bytes(frame) for frame in record["frames"]] == made.frames
  assert record["mel"].dtype == np.float32
  assert record["mel"].shape == made.mel.shape
  assert record["mel"].tobytes() == made.mel.tobytes()
  assert record["audio"] == made.audio
  assert record["boxes"].tobytes() == made.boxes.tobytes()
  assert record["boxes"].shape == (len(made.frames), 4)
  assert record["fps"] == 25
  assert record["source"]["file"].decode() == made.file == f"{made.id}.mp4"
  assert record["source"]["start"] == 0
  assert record["source"]["sha256"].decode() == made.sha256
  assert record["speaker"] == b"someone"
  assert record["crop_rule"] == b"box"
  assert record["detector"] == b"mtcnn"


# --- Reading -----------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_tfds_reads_it(data_dir, prepared, split):
  builder = tfds.builder_from_directory(str(builder_dir(data_dir)))
  source = builder.as_data_source(split)
  assert len(source) == len(SPLITS[split])
  found = [source[i] for i in range(len(source))]
  assert sorted(r["id"].decode() for r in found) == SPLITS[split]
  for record in found:
    check_record(record, prepared[record["id"].decode()])


def test_grain_reads_it(data_dir, prepared):
  builder = tfds.builder_from_directory(str(builder_dir(data_dir)))
  data = grain.MapDataset.source(builder.as_data_source("train"))
  data = data.shuffle(seed=1).repeat(2)
  assert len(data) == 8
  found = list(data.to_iter_dataset(grain.ReadOptions(num_threads=2)))
  assert sorted(r["id"].decode() for r in found) == sorted(SPLITS["train"] * 2)
  for record in found:
    check_record(record, prepared[record["id"].decode()])


@pytest.mark.parametrize("split", SPLITS)
def test_split_reads_it(data_dir, prepared, split):
  opened = dataset.Split(dataset.builder_dir(data_dir, SIZE), split)
  assert len(opened) == len(opened.index) == len(SPLITS[split])
  ends = np.cumsum(opened.index.num_mel)
  assert len(opened.index.column_means) == ends[-1]
  for i in range(len(opened)):
    record = opened[i]
    made = prepared[opened.index.ids[i]]
    check_record(record, made)
    assert opened.index.num_frames[i] == len(made.frames)
    assert opened.index.num_mel[i] == len(made.mel)
    means = opened.index.record_column_means(i)
    assert len(means) == len(made.mel)
    for k in (0, 7, len(means) - 1):
      assert means[k] == pytest.approx(
        sum(float(v) for v in made.mel[k]) / 80, abs=1e-5
      )


def test_split_crosses_to_another_process(data_dir):
  split = dataset.Split(dataset.builder_dir(data_dir, SIZE), "train")
  again = pickle.loads(pickle.dumps(split))
  assert len(again) == 4
  for i in range(4):
    assert list(again[i]["frames"]) == list(split[i]["frames"])
    assert again.index.ids[i] == split.index.ids[i]


def test_decoding(data_dir, prepared):
  split = dataset.Split(dataset.builder_dir(data_dir, SIZE), "test")
  record, made = split[0], prepared["someone/clip5"]
  frames = dataset.decode_frames(record)
  assert frames.shape == (25, SIZE, SIZE, 3) and frames.dtype == np.uint8
  for frame, data in zip(frames, made.frames, strict=True):
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(frame, expected)
  np.testing.assert_array_equal(
    dataset.decode_frames(record, slice(7, 12)), frames[7:12]
  )
  # Blue first: the astronaut's skin is redder than blue.
  red, blue = frames[..., 2].mean(), frames[..., 0].mean()
  assert red > blue + 10
  assert dataset.text(record["source"]["file"]) == "someone/clip5.mp4"

  waveform = dataset.decode_audio(record)
  assert waveform.shape == (16_000,) and waveform.dtype == np.float32
  assert np.corrcoef(waveform, babble(1.0, seed=5))[0, 1] > 0.8
  # The mel was computed from this sound, but for its rounding to 16 bits.
  assert np.abs(audio.log_mel(waveform) - record["mel"]).mean() < 0.01


def test_preparation_is_noted(data_dir):
  settings = dataset.preparation(str(builder_dir(data_dir)))
  assert settings["image_size"] == SIZE
  assert settings["detector"] == "mtcnn"
  assert settings["crop_rule"] == "box"
  assert settings["audio_padding"] == "reflect"
  assert settings["jpeg_quality"] == 95


# --- Damage ------------------------------------------------------------------

SHARD = "lipsync_dataset-train.array_record-00000-of-00001"


def fails(folder, split: str, *words: str) -> None:
  with pytest.raises(dataset.DatasetError) as e:
    opened = dataset.Split(str(folder), split)
    for i in range(len(opened)):
      opened[i]
  for word in words:
    assert word in str(e.value)
  assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize(
  "damage",
  [
    lambda data: data[: len(data) // 2],
    lambda data: data[: len(data) - 65_536],
    lambda data: data[:-1],
    lambda data: b"",
    lambda data: bytes(len(data)),
    lambda data: b"not a shard\n" * (len(data) // 12),
  ],
  ids=["half", "without its footer", "a byte less", "empty", "zeros", "text"],
)
def test_a_damaged_shard(copy, damage):
  shard = copy / SHARD
  shard.write_bytes(damage(shard.read_bytes()))
  fails(copy, "train", str(shard), AGAIN)
  # The other splits are whole.
  assert len(dataset.Split(str(copy), "val")) == 1


def test_a_shard_of_fewer_records(copy):
  shard = copy / SHARD
  shutil.copy(copy / SHARD.replace("train", "val"), shard)
  fails(copy, "train", str(shard), "has 1 records, expected 4", AGAIN)


def test_damage_inside_a_shard_is_found_when_read(copy):
  shard = copy / SHARD
  data = bytearray(shard.read_bytes())
  # Within the records: the footer, which opening reads, stays.
  middle = len(data) // 3
  data[middle : middle + 3000] = bytes(3000)
  shard.write_bytes(data)
  assert len(dataset.Split(str(copy), "train")) == 4
  fails(copy, "train", str(copy), "someone/clip", "'train'", AGAIN)


def test_a_missing_shard(copy):
  (copy / SHARD).unlink()
  fails(copy, "train", str(copy / SHARD), AGAIN)


def test_a_missing_index(copy):
  (copy / "index-train.npz").unlink()
  fails(copy, "train", "index-train.npz", "missing", AGAIN)


@pytest.mark.parametrize(
  "damage",
  [
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: bytes(len(data)),
    lambda data: b"text",
  ],
  ids=["empty", "half", "zeros", "text"],
)
def test_a_damaged_index(copy, damage):
  index = copy / "index-train.npz"
  index.write_bytes(damage(index.read_bytes()))
  fails(copy, "train", "index-train.npz", "cannot be read", AGAIN)


def test_an_index_of_another_length(copy):
  shutil.copy(copy / "index-val.npz", copy / "index-train.npz")
  fails(copy, "train", "index-train.npz", "1", "4", AGAIN)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_damaged_description(copy, name):
  text = (copy / name).read_text()
  (copy / name).write_text(text[: len(text) // 2])
  fails(copy, "train", str(copy), AGAIN)


def test_an_empty_split(copy):
  info = json.loads((copy / "dataset_info.json").read_text())
  info["splits"] = [s for s in info["splits"] if s["name"] == "test"]
  (copy / "dataset_info.json").write_text(json.dumps(info))
  fails(copy, "val", str(copy), "'val' is empty", "--val_fraction", AGAIN)
  # There is no --train_fraction.
  fails(copy, "train", str(copy), "'train' is empty", "--val_fraction", AGAIN)


def test_a_missing_set_and_a_wrong_size(data_dir, tmp_path):
  folder = dataset.builder_dir(str(tmp_path / "nowhere"), SIZE)
  fails(folder, "train", folder, "launch.prepare_data --input=")
  folder = dataset.builder_dir(data_dir, 4 * SIZE)
  assert not os.path.exists(folder)
  fails(folder, "train", folder, "faces of 24 pixels", "--image_size=")


# --- Indices -----------------------------------------------------------------


def test_indices_are_written_over_whatever_is_there(copy):
  before = {p.name: p.read_bytes() for p in copy.glob("index-*.npz")}
  assert sorted(before) == [
    "index-test.npz",
    "index-train.npz",
    "index-val.npz",
  ]
  for name in before:
    (copy / name).write_bytes(b"old")
  dataset.write_indices(str(copy))
  assert {p.name: p.read_bytes() for p in copy.glob("index-*")} == before


def test_contents_digest(data_dir, copy):
  """A copy has the same, with other times; other contents have another."""

  def digest(directory):
    return dataset.contents_digest(dataset.open_splits(str(directory)).values())

  original = digest(builder_dir(data_dir))
  for path in copy.iterdir():
    os.utime(path, (1e9, 1e9))
  assert digest(copy) == original
  (shard,) = copy.glob("*train.array_record*")
  data = bytearray(shard.read_bytes())
  data[2000] ^= 1
  shard.write_bytes(data)
  assert digest(copy) != original
  shard.write_bytes((builder_dir(data_dir) / shard.name).read_bytes())
  assert digest(copy) == original
  # Other sound in one mel column of one record.
  path = dataset.index_file(str(copy), "train")
  with np.load(path) as arrays:
    arrays = dict(arrays)
  arrays["column_means"][7] += 1e-3
  np.savez(path, **arrays)
  assert digest(copy) != original


def test_parts_share_no_clip(data_dir, monkeypatch):
  """The judge's and the rest are the whole; records keep their ids."""
  monkeypatch.setattr(dataset, "_JUDGE_CLIPS", 2)
  directory = str(builder_dir(data_dir))
  splits = {
    part: dataset.Split(directory, "train", part=part) for part in dataset.PARTS
  }
  ids = {part: set(split.index.ids) for part, split in splits.items()}
  assert len(ids["judge"]) == len(ids["rest"]) == 2
  assert ids["judge"] | ids["rest"] == ids["all"] == set(SPLITS["train"])
  digests = {k: hashlib.sha256(k.encode()).hexdigest() for k in ids["all"]}
  assert max(digests[k] for k in ids["judge"]) < min(
    digests[k] for k in ids["rest"]
  )
  for split in splits.values():
    for i in range(len(split)):
      record = split[i]
      assert dataset.text(record["id"]) == split.index.ids[i]
      assert len(record["frames"]) == split.index.num_frames[i]
      np.testing.assert_array_equal(
        split.index.record_column_means(i), record["mel"].mean(axis=1)
      )
    # A part is of the same set.
    assert dataset.contents_digest([split]) == dataset.contents_digest(
      [splits["all"]]
    )


@pytest.mark.parametrize(
  ("part", "message"),
  [("rest", "takes 150 records and there are 4"), ("half", "expected one of")],
)
def test_a_part_that_is_empty_or_unknown(data_dir, part, message):
  with pytest.raises(dataset.DatasetError, match=message):
    dataset.Split(str(builder_dir(data_dir)), "train", part=part)
