"""Videos: finding faces, what is wrong with files, one row a track."""

import shutil

import numpy as np
import pytest
from conftest import SETTINGS, babble, face_picture, talking_frames, write_video

from w2l_jax import evaluate_videos, faces, judges, video
from w2l_jax.evaluate_sync import Protocol
from w2l_jax.judges import Features
from w2l_jax.pairs import Pair

PREPARATION = {
  "detector": "mtcnn",
  "tracking": dict(vars(faces.Tracking())),
  "audio_padding": "reflect",
  "crop_rule": "box",
}


class Colours:
  """A judge that needs no network: lips are a picture's mean colour."""

  name, picture_size = "expert", 24

  def __call__(self, pictures, waveform, mel):
    lips = np.stack([p.mean(axis=(0, 1)) for p in pictures])
    count = min(len(lips), len(waveform) // 640) - 4
    if count < 1:
      raise ValueError("no window")
    speech = np.stack([mel[3 * v].mean() * np.ones(3) for v in range(count)])
    speechful = judges.has_speech(mel, count, -2.5, 16)
    return Features(lips[:count], speech, speechful)


def evaluate(folder, pairs, make=None, shown=0, min_frames=20):
  show = []
  found = evaluate_videos.evaluate(
    str(folder),
    pairs,
    make,
    evaluate_videos.VideoJudges([Colours()], "tracked", PREPARATION),
    PREPARATION,
    Protocol(shown=shown, min_frames=min_frames),
    lambda *args: show.append(args),
  )
  return found, show


@pytest.fixture(scope="module")
def bad_folder(video_folder, tmp_path_factory):
  """Videos with everything that can be wrong, beside two good ones."""
  folder = tmp_path_factory.mktemp("bad")
  for name in ("clip4", "clip5"):
    shutil.copy(video_folder / "someone" / f"{name}.mp4", folder)
  grey = [np.full((128, 128, 3), 128, np.uint8)] * 30
  write_video(folder / "noface.mp4", grey, babble(1.2))
  write_video(folder / "silent.mp4", talking_frames(30), None)
  write_video(folder / "short.mp4", talking_frames(10), babble(0.4))
  (folder / "text.mp4").write_text("no video")
  return folder


def test_bad_videos_are_named_and_the_rest_scored(bad_folder):
  names, seconds = evaluate_videos.list_videos(str(bad_folder))
  assert names == [
    "clip4.mp4", "clip5.mp4", "noface.mp4", "short.mp4", "silent.mp4",
    "text.mp4",
  ]  # fmt: skip
  assert dict(zip(names, seconds, strict=True))["silent.mp4"] == 0
  pairs = [Pair(n, n) for n in (*names, "gone.mp4")]
  found, show = evaluate(bad_folder, pairs, shown=1)
  assert [r["names"] for r in found.rows] == [
    {"clip": n, "variant": "given", "track": "0"} for n in names[:2]
  ]
  reasons = {f["clip"]: f["reason"] for f in found.failures}
  assert set(reasons) == {*names[2:], "gone.mp4"}
  assert "no face in 20 frames on end" in reasons["noface.mp4"]
  assert "has 10 frames, fewer than 20" in reasons["short.mp4"]
  assert "has no audio stream" in reasons["silent.mp4"]
  assert "text.mp4" in reasons["text.mp4"]
  assert "no such file" in reasons["gone.mp4"]
  assert show == [("clip4.mp4", {"given": str(bad_folder / "clip4.mp4")})]
  assert "expert_lse_d" in found.summary()


def test_generated_videos_beside_their_baselines(bad_folder, tmp_path):
  """The generator here copies: what counts is what stands beside what."""
  made = []

  def make(face, speech, name):
    made.append((face, speech, name))
    return shutil.copy(speech, tmp_path / "made.mp4")

  pairs = [
    Pair("clip4", "clip5"),  # Without suffix, as the published lists.
    Pair("noface", "clip5"),
    Pair("clip4", "silent"),
    Pair("clip4", "gone"),
  ]
  found, show = evaluate(bad_folder, pairs, make, shown=3)
  four, five = (str(bad_folder / f"clip{i}.mp4") for i in (4, 5))
  assert made[0] == (four, five, "clip4 says clip5")
  variants = [
    r["names"]["variant"]
    for r in found.rows
    if r["names"]["clip"] == "clip4 says clip5"
  ]
  assert variants == ["generated", "real", "unsynced", "copied"]
  reasons = {f["clip"]: f["reason"] for f in found.failures}
  assert "no face" in reasons["noface says clip5"]
  assert "has no sound" in reasons["clip4 says silent"]
  assert "no such file" in reasons["clip4 says gone"]
  # The made copy is the speech's own video and scores as it does.
  by_variant = found.summary()["expert_lse_d"]
  assert by_variant["generated"]["mean"] == pytest.approx(
    by_variant["real"]["mean"]
  )
  assert list(show[0][1]) == ["real", "unsynced", "generated"]


def test_every_track_is_a_row(tmp_path):
  """A cut to another face begins a track; sound is cut where it does."""
  first = talking_frames(30, seed=0)
  second = [np.roll(f, 90, axis=1) for f in talking_frames(30, seed=1)]
  small = face_picture(128)
  for frame in second:
    frame[:] = 90
    frame[100:228, 110:238] = small
  write_video(tmp_path / "two.mp4", first + second, babble(2.4))
  found, _ = evaluate(tmp_path, [Pair("two.mp4", "two.mp4")])
  assert [r["names"]["track"] for r in found.rows] == ["0", "1"]


def test_tracks_are_what_preparation_finds(video_folder):
  path = str(video_folder / "someone" / "clip4.mp4")
  (track,) = evaluate_videos.find_tracks(
    path, "mtcnn", SETTINGS.tracking, min_frames=20
  )
  assert track.frames == slice(0, 50)
  frames = list(video.frames_at_rate(path, 25))
  for rule in ("box", "margin:0.1"):
    crops = list(evaluate_videos.face_crops(path, track, 24, rule))
    boxes = faces.cut_boxes(track.boxes, rule)
    for i in (0, 49):
      expected = faces.crop(frames[i], boxes[i], 24)
      np.testing.assert_array_equal(crops[i], expected)


def test_syncnet_crop():
  """From the middle: one half side up, 1.8 down, 1.4 to either side."""
  rows, columns = np.mgrid[0:200, 0:300]
  frame = np.stack([columns, rows, np.zeros_like(rows)], -1).clip(0, 255)
  cut = evaluate_videos.syncnet_crop(frame.astype(np.uint8), 40.0, 120.0, 90.0)
  assert cut.shape == (224, 224, 3)
  assert cut[112, 0, 0] == pytest.approx(120 - 56, abs=1)
  assert cut[112, -1, 0] == pytest.approx(120 + 56, abs=1)
  assert cut[0, 112, 1] == pytest.approx(90 - 40, abs=1)
  assert cut[-1, 112, 1] == pytest.approx(90 + 72, abs=1)


def test_outside_of_the_frame_is_grey():
  frame = np.zeros((100, 100, 3), np.uint8)
  cut = evaluate_videos.syncnet_crop(frame, 30.0, 5.0, 95.0)
  assert (cut[:, 0] == 110).all() and (cut[-1] == 110).all()
  assert (cut[0, -1] == 0).all()


def test_whole_frames_or_tracked_faces(video_folder):
  path = str(video_folder / "someone" / "clip5.mp4")
  boxes = np.tile(np.float32([80, 60, 170, 190]), (25, 1))
  track = evaluate_videos.Track(slice(0, 25), boxes)

  class Syncnet(Colours):
    name = "syncnet"

    def __call__(self, pictures, waveform, mel):
      pictures = list(pictures)
      self.seen = pictures[0].shape, len(pictures)
      return super().__call__(pictures, waveform, mel)

  for word, shape in (("whole", (256, 256, 3)), ("tracked", (224, 224, 3))):
    judge = Syncnet()
    asked = evaluate_videos.VideoJudges([judge], word, PREPARATION)
    asked(path, track, babble(1.0))
    assert judge.seen == (shape, 25)
  with pytest.raises(ValueError, match="expected one of"):
    evaluate_videos.VideoJudges([], "other", PREPARATION)
