"""What the page does, without a page."""

import dataclasses
import os
import time

import conftest
import numpy as np
import pytest
import soundfile

from launch import web_jobs
from w2l_jax import face_preview, video


@pytest.fixture(scope="module")
def face(tmp_path_factory):
  path = tmp_path_factory.mktemp("face") / "face.mp4"
  conftest.write_video(path, conftest.talking_frames(20), conftest.babble(0.8))
  return str(path)


@pytest.fixture
def studio(syncer, tmp_path):
  return web_jobs.Studio(syncer, str(tmp_path), web_jobs.Limits(seconds=2))


def refused(call, *args):
  with pytest.raises(web_jobs.Refused) as e:
    call(*args)
  return str(e.value)


def test_a_preview_and_a_video(studio, face, tmp_path):
  speech = str(tmp_path / "speech.wav")
  soundfile.write(speech, conftest.babble(0.8), conftest.SAMPLE_RATE)
  request = web_jobs.Request(face, speech, {"faces": "largest"})
  seen = studio.look(request)
  assert seen.chosen == (1,) and seen.picture.shape == (256, 256, 3)
  told = []
  path, said = studio.lipsync(request, lambda *news: told.append(news))
  assert said.startswith("0.8 seconds, 20 frames, made in")
  assert len(list(video.frames_at_rate(path, 25))) == 20
  assert path.startswith(str(tmp_path))
  assert ("finding faces", 0, 20) in told
  assert told[-1] == ("lip-syncing", 20, 20)


def test_what_is_missing_or_too_much(studio, face, tmp_path):
  request = web_jobs.Request
  assert refused(studio.look, request("")) == "choose a face first"
  assert refused(studio.lipsync, request(face)) == "choose speech first"
  gone = str(tmp_path / "gone.mp4")
  assert refused(studio.look, request(gone)).startswith(
    "gone.mp4: is not here any more"
  )
  long = tmp_path / "long.wav"
  soundfile.write(long, conftest.babble(2.5), conftest.SAMPLE_RATE)
  assert "longer than the 2 seconds" in refused(
    studio.lipsync, request(face, str(long))
  )
  studio.limits = dataclasses.replace(studio.limits, pixels=100 * 100)
  said = refused(studio.look, request(face))
  assert said.startswith("face.mp4: its pictures are 256 x 256")
  # A failed run leaves nothing.
  assert not [f for f in tmp_path.rglob("*.mp4")]


def _crash(job):
  os.abort()


def _hang(job):
  time.sleep(60)


@pytest.mark.parametrize("function", [_crash, _hang])
def test_files_that_take_their_reader_along(studio, function):
  studio.limits = dataclasses.replace(studio.limits, patience=1.0)
  with pytest.raises(web_jobs.Refused, match="crashes or takes too long"):
    studio._apart(function, ())


def test_errors_tell_no_paths_and_no_flags(studio, face, monkeypatch):
  def fail(*args, **kwargs):
    raise RuntimeError(f"secret of {face}")

  monkeypatch.setattr(studio.syncer, "write", fail)
  said = refused(studio.lipsync, web_jobs.Request(face, face))
  assert said.startswith("something unexpected went wrong")
  with (
    pytest.raises(web_jobs.Refused, match="^face.mp4: another detector"),
    web_jobs._clear(web_jobs.Request(face)),
  ):
    raise video.MediaError(f"{face}: another --detector")


def test_the_janitor(tmp_path):
  janitor = web_jobs.Janitor(str(tmp_path), 60)
  for name, age in (("old", 3700), ("new", 0)):
    (tmp_path / name).mkdir()
    file = tmp_path / name / "file"
    file.write_text("")
    os.utime(file, (time.time() - age,) * 2)
    os.utime(file.parent, (time.time() - age,) * 2)
  janitor.clean()
  assert not (tmp_path / "old" / "file").exists()
  assert (tmp_path / "new" / "file").exists()


def test_previews_number_faces_from_the_left():
  frames = np.stack(
    [
      np.concatenate(pair, axis=1)
      for pair in zip(
        conftest.talking_frames(10, 1, 200),
        conftest.talking_frames(10, 2, 200),
        strict=True,
      )
    ]
  )
  for who, chosen in (("all", (1, 2)), (1, (1,)), ("2", (2,)), (3, ())):
    found = face_preview.preview(frames, int(who) if who == "2" else who)
    assert found.chosen == chosen
    assert found.boxes[0, 2] < 200 < found.boxes[1, 0]
  assert str(found) == "2 faces, from left to right; none of them is meant"
