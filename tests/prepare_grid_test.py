"""Preparation of real clips, where they are at hand."""

import json

import cv2
import numpy as np
import pytest

from data_prep import clip_store, clips, listing, prepare, records

# A clip lasts three seconds.
COUNT = 3
WIDTH, HEIGHT = 360, 288


@pytest.fixture(scope="module")
def prepared(grid_folder, tmp_path_factory):
  """(output folder, {id: record}) of the first three clips."""
  videos = tmp_path_factory.mktemp("grid")
  output = tmp_path_factory.mktemp("grid_data")
  (videos / "s1").mkdir()
  for path in sorted((grid_folder / "s1").glob("*.mp4"))[:COUNT]:
    (videos / "s1" / path.name).symlink_to(path)
  settings = clips.Settings()
  ids = listing.list_sources(str(videos))
  assert len(ids) == COUNT
  found = {}
  files = []
  for clip_id, file in ids.items():
    # As prepare.prepare does, without the seconds that its processes cost.
    clip_dir = str(output / "clips")
    job = clip_store.Job(str(videos), file, clip_id, settings, clip_dir)
    status = clip_store.make_clip(job)
    assert status["reason"] is None, (file, status["reason"])
    files.append(f"{job.path}.npz")
    for record in records.load_records(files[-1]):
      found[record.id] = record
  prepare.pack({"train": files}, settings, str(output))
  return output, found


def test_one_record_a_clip(prepared):
  _, records = prepared
  assert len(records) == COUNT
  for clip_id, record in records.items():
    assert clip_id.startswith("s1/") and record.speaker == "s1"
    assert record.start == 0
    assert len(record.frames) in (74, 75)
    # 80 columns a second and one more.
    assert abs(len(record.mel) - 241) <= 5


def test_boxes_are_inside_and_steady(prepared):
  _, records = prepared
  for clip_id, record in records.items():
    x1, y1, x2, y2 = record.boxes.T
    assert (x1 >= 0).all() and (x2 <= WIDTH).all(), clip_id
    assert (y1 >= 0).all() and (y2 <= HEIGHT).all(), clip_id
    # The speaker's head fills between a fifth and two thirds of the height.
    assert (y2 - y1 > HEIGHT / 5).all() and (y2 - y1 < HEIGHT * 2 / 3).all()
    assert (x2 - x1 > 50).all() and (x2 - x1 < y2 - y1).all()
    assert np.abs(np.diff(record.boxes, axis=0)).max() < 15, clip_id


def test_crops_are_faces(prepared):
  """OpenCV's cascade, another detector, finds a face in nearly all crops."""
  _, records = prepared
  cascade = cv2.CascadeClassifier(
    cv2.data.haarcascades + "haarcascade_frontalface_default.xml"
  )
  for clip_id, record in records.items():
    found = 0
    for jpeg in record.frames[::15]:
      image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
      assert image.shape == (96, 96)
      # A frontal cascade wants some room around the face, upright.
      y1, y2, x1, x2 = record.boxes[0][[1, 3, 0, 2]]
      height = round(96 * float((y2 - y1) / (x2 - x1)))
      image = cv2.resize(image, (96, height))
      image = cv2.copyMakeBorder(image, 24, 24, 24, 24, cv2.BORDER_REPLICATE)
      found += len(cascade.detectMultiScale(image, 1.05, 2)) > 0
    assert found >= 4, clip_id


def test_speech_is_in_the_middle(prepared):
  """GRID's clips begin and end in silence."""
  _, records = prepared
  for clip_id, record in records.items():
    loudness = record.mel.mean(axis=1)
    assert loudness[60:180].mean() > loudness[:20].mean() + 0.5, clip_id
    assert record.mel.min() >= -4 and record.mel.max() <= 4


def test_the_shards_hold_them(prepared):
  output, records = prepared
  folder = output / "lipsync_dataset" / "face96" / "1.0.0"
  info = json.loads((folder / "dataset_info.json").read_text())
  (split,) = info["splits"]
  assert split["name"] == "train" and split["shardLengths"] == [str(COUNT)]
  with np.load(folder / "index-train.npz") as index:
    assert sorted(index["ids"]) == sorted(records)
