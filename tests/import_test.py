"""What users of Wav2Lip have: folders of crops, lists, boxes of their own."""

import json

import cv2
import numpy as np
import prepare_test
import pytest
import soundfile
from conftest import SETTINGS, babble, talking_frames, write_video

from data_prep import clips, isolation
from data_prep.settings import SetAside, Settings
from w2l_jax import audio, dataset

SIZE = SETTINGS.image_size


def crops_folder(folder, numbers, seed=0, side=60, seconds=2.0):
  """As preprocess.py leaves it: {i}.jpg and audio.wav at the source's rate."""
  folder.mkdir(parents=True)
  pictures = {}
  for i, image in zip(
    numbers, talking_frames(len(numbers), seed, size=side), strict=True
  ):
    cv2.imwrite(str(folder / f"{i}.jpg"), image)
    pictures[i] = cv2.imread(str(folder / f"{i}.jpg"))
  sound = babble(seconds, seed, rate=44_100)
  soundfile.write(folder / "audio.wav", np.stack([sound] * 2, 1), 44_100)
  return pictures, sound


def test_crops_become_records_where_they_are_on_end(tmp_path):
  # Frames 20 to 23 had no face; 24 to 30 are too few.
  numbers = [*range(20), *range(24, 31), *range(32, 50)]
  pictures, sound = crops_folder(tmp_path / "main" / "633" / "00001", numbers)
  records = clips.make_records(
    str(tmp_path), "main/633/00001", "633/00001", SETTINGS
  )
  assert [r.id for r in records] == ["633/00001", "633/00001_1"]
  assert [len(r.frames) for r in records] == [20, 18]
  assert [r.start for r in records] == [0, 32 / 25]
  mono = audio.resample(sound, 44_100)
  for record in records:
    assert record.speaker == "633"
    assert json.loads(record.settings)["detector"] == "s3fd"
    assert np.isnan(record.boxes).all() and np.isnan(record.confidence)
    first = round(record.start * 25)
    for k, jpeg in enumerate(record.frames):
      image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
      expected = cv2.resize(pictures[first + k], (SIZE, SIZE))
      assert np.abs(image.astype(int) - expected).mean() < 4
    heard = dataset.decode_audio({"audio": record.audio})
    begin = first * 640
    np.testing.assert_allclose(
      heard, mono[begin : begin + len(heard)], atol=1e-3
    )
    assert len(record.mel) == 1 + len(heard) // 200


def test_crops_that_cannot_be_used(tmp_path):
  crops_folder(tmp_path / "few", range(10))
  with pytest.raises(SetAside, match=r"no 16 crops on end \(10 crops"):
    clips.make_records(str(tmp_path), "few", "few", SETTINGS)
  crops_folder(tmp_path / "bad", range(20))
  (tmp_path / "bad" / "7.jpg").write_bytes(b"")
  with pytest.raises(SetAside, match=r"^7\.jpg cannot be read"):
    clips.make_records(str(tmp_path), "bad", "bad", SETTINGS)
  crops_folder(tmp_path / "mute", range(20))
  (tmp_path / "mute" / "audio.wav").write_bytes(b"RIFF")
  with pytest.raises(SetAside, match=r"^audio\.wav: .*not a video or sound"):
    clips.make_records(str(tmp_path), "mute", "mute", SETTINGS)


def test_a_preprocessed_set_with_its_filelists(tmp_path, monkeypatch):
  """LRS2's lists: relative to the folder, a second word on some lines."""
  monkeypatch.setattr(isolation, "run", prepare_test.one_after_the_other)
  root = tmp_path / "lrs2_preprocessed"
  for i in range(4):
    crops_folder(root / "633" / f"{i:05d}", range(18), seed=i)
  lists = tmp_path / "filelists"
  lists.mkdir()
  (lists / "train.txt").write_text("633/00000\n633/00001\n")
  (lists / "val.txt").write_text("633/00002 NF\n")
  report = prepare_test.run(root, tmp_path / "data", lists)
  assert report.records == {"train": 2, "val": 1}
  # What no list names is not even tried.
  assert report.made == 3 and report.not_listed == ["633/00003"]
  train = prepare_test.records(tmp_path / "data")["train"]
  assert set(train) == {"633/00000", "633/00001"}
  assert train["633/00000"]["detector"].decode() == "s3fd"
  # Another crop, another record.
  crop = root / "633" / "00001" / "3.jpg"
  crop.write_bytes((root / "633" / "00000" / "3.jpg").read_bytes())
  report = prepare_test.run(root, tmp_path / "data", lists)
  assert (report.made, report.reused) == (1, 2)


# --- Boxes that are given ---


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
  """A clip of 40 grey frames: whatever box is given is not the detector's."""
  folder = tmp_path_factory.mktemp("flat")
  frames = [np.full((64, 80, 3), 5 * i, np.uint8) for i in range(40)]
  write_video(folder / "clip.mp4", frames, babble(1.6))
  return folder


def given(flat, folder, text):
  (folder / "clip.csv").write_text(text)
  settings = Settings(
    image_size=SIZE, detector=f"boxes:{folder}", keep_faces="all"
  )
  return clips.make_records(str(flat), "clip.mp4", "clip", settings)


def test_given_boxes_are_interpolated(flat, tmp_path):
  (record,) = given(
    flat,
    tmp_path,
    "seconds,x1,y1,x2,y2,score\n"
    "0.2,10,5,40,45,0.8\n0.6,14,5,44,45,0.6\n1.0,18,5,48,45,1.0\n",
  )
  assert record.start == 5 / 25 and len(record.frames) == 21
  assert record.confidence == pytest.approx(0.8)
  expected = 10 + 4 * (np.arange(21) / 25) / 0.4
  np.testing.assert_allclose(record.boxes[:, 0], expected, atol=1e-4)
  np.testing.assert_allclose(record.boxes[:, 3], 45)


def test_given_tracks_are_kept_apart_and_split_at_gaps(flat, tmp_path):
  rows = [f"{t / 25},0,0,20,30,1" for t in range(0, 17)]
  rows += [f"{t / 25},40,0,60,30,2" for t in (0, 10, 16, 39)]
  records = given(
    flat, tmp_path, "seconds,x1,y1,x2,y2,track\n" + "\n".join(rows)
  )
  # From frame 16 to 39 track 2 was missed for too long.
  assert [(len(r.frames), r.boxes[0, 0]) for r in records] == [
    (17, 0),
    (17, 40),
  ]


@pytest.mark.parametrize(
  ("text", "why"),
  [
    ("", "cannot be read"),
    ("a,b\n1,2\n", "cannot be read.*seconds,x1,y1,x2,y2"),
    ("seconds,x1,y1,x2,y2\n0,1,2,three,4\n", "boxes"),
    ("seconds,x1,y1,x2,y2\n0,1,2,3\n0.1,1,2,3,4\n", "cannot be read"),
    ("seconds,x1,y1,x2,y2\n9,0,0,20,30\n", "no face in 16 frames"),
  ],
)
def test_boxes_that_cannot_be_used(flat, tmp_path, text, why):
  with pytest.raises(SetAside, match=why):
    given(flat, tmp_path, text)


def test_a_clip_without_boxes(flat, tmp_path):
  settings = Settings(image_size=SIZE, detector=f"boxes:{tmp_path}")
  with pytest.raises(SetAside, match=r"has no boxes: .*clip\.csv is not there"):
    clips.make_records(str(flat), "clip.mp4", "clip", settings)


def test_changed_boxes_are_prepared_again(flat, tmp_path, monkeypatch):
  monkeypatch.setattr(isolation, "run", prepare_test.one_after_the_other)
  boxes = tmp_path / "boxes"
  boxes.mkdir()
  rows = "seconds,x1,y1,x2,y2\n" + "".join(
    f"{t / 10},5,5,40,45\n" for t in range(16)
  )
  (boxes / "clip.csv").write_text(rows)
  settings = Settings(image_size=SIZE, detector=f"boxes:{boxes}")
  arguments = {"val_fraction": 0, "test_fraction": 0}
  report = prepare_test.run(
    flat, tmp_path / "data", settings=settings, **arguments
  )
  assert report.made == 1
  (boxes / "clip.csv").write_text(rows.replace(",40,", ",44,"))
  report = prepare_test.run(
    flat, tmp_path / "data", settings=settings, **arguments
  )
  assert (report.made, report.reused) == (1, 0)
