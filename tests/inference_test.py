"""Lip-syncing with a tiny generator: files in, files out."""

import itertools
import os

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from conftest import babble, face_picture, talking_frames, write_video

from w2l_jax import audio, faces, inference, video


@pytest.mark.parametrize("fps", [25, 29.97, 30, 50])
@pytest.mark.parametrize("offset", [0, -1, -2])
def test_frame_mels(fps, offset):
  """Against one frame at a time, silence wherever there is no column."""
  mel = np.random.default_rng(0).normal(size=(97, 80)).astype(np.float32)
  got = inference.frame_mels(mel, 60, fps, 16, offset)
  assert got.shape == (60, 16, 80)
  for f in range(60):
    # The window begins offset / 25 s after the frame does.
    start = int(np.floor(80 * (f / fps + offset / 25) + 1e-9))
    for k in range(16):
      column = start + k
      inside = 0 <= column < len(mel)
      expected = mel[column] if inside else np.full(80, -4.0)
      np.testing.assert_array_equal(got[f, k], expected)


def test_frame_mels_are_trainings():
  """At 25 frames a second, the windows that training takes."""
  from w2l_jax import windows

  mel = np.random.default_rng(0).normal(size=(200, 80)).astype(np.float32)
  at_use = inference.frame_mels(mel, 40, 25.0, 16, -1)
  in_training = windows.frame_mel_windows(mel, 7, 5, 16, -1)
  np.testing.assert_array_equal(at_use[7:12], in_training)


@pytest.fixture(scope="session")
def face_video(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("face") / "face.v1.mp4")
  write_video(path, talking_frames(30, seed=9), babble(1.2, seed=9))
  return path


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("speech") / "speech.wav")
  soundfile.write(path, babble(0.8, seed=5, rate=44100), 44100)
  return path


def test_video_and_speech(gan_run, face_video, speech, tmp_path):
  """As long as the speech, only the face changed, sound in place."""
  out = str(tmp_path / "out.mp4")
  summary = inference.lipsync(gan_run[0], face_video, speech, out)
  assert summary.frames == summary.with_face == 20
  frames = list(video.frames_at_rate(out, 25))
  source = list(video.frames_at_rate(face_video, 25))
  assert len(frames) == 20
  assert frames[0].shape == source[0].shape
  difference = np.abs(np.int16(frames[10]) - source[10]).mean(axis=2)
  changed = difference > 30
  rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
  assert changed.sum() > 500  # An untrained network draws no face.
  # Encoding apart, what lies around the face is the source's.
  border = np.ones_like(changed)
  border[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = False
  assert border.mean() > 0.3 and difference[border].mean() < 2
  waveform, rate = video.read_audio(out)
  original, _ = soundfile.read(speech)
  assert rate == 44100
  assert abs(len(waveform) - len(original)) <= 2048
  # AAC replaces noise by other noise: its loudness over time must be in place.
  loudness = [
    audio.log_mel(x, 44100).mean(axis=1)[:60] for x in (waveform, original)
  ]
  lags = [
    np.corrcoef(loudness[0][8 + k : 48 + k], loudness[1][8:48])[0, 1]
    for k in range(-8, 9)
  ]
  assert np.argmax(lags) == 8 and max(lags) > 0.95
  assert os.listdir(tmp_path) == ["out.mp4"]


def test_photo(gan_run, speech, tmp_path):
  photo = str(tmp_path / "photo.png")
  cv2.imwrite(photo, face_picture())
  out = str(tmp_path / "out.mp4")
  summary = inference.lipsync(gan_run[0], photo, speech, out)
  assert summary.frames == summary.with_face == 20


def test_longer_speech_repeats_the_video(gan_run, face_video, tmp_path):
  speech = str(tmp_path / "long.mp4")  # Speech may come from a video.
  write_video(speech, talking_frames(50), babble(2.0))
  out = str(tmp_path / "out.mp4")
  summary = inference.lipsync(gan_run[0], face_video, speech, out)
  # AAC pads sound to whole packets: a frame more at the most.
  assert summary.frames in (50, 51)


def test_frames_without_a_face_pass(gan_run, speech, tmp_path):
  """A face in the first half only; the rest is left alone and counted."""
  path = str(tmp_path / "half.mp4")
  frames = talking_frames(10) + [np.full((256, 256, 3), 99, np.uint8)] * 10
  write_video(path, frames)
  out = str(tmp_path / "out.mp4")
  summary = inference.lipsync(gan_run[0], path, speech, out)
  assert summary.frames == 20 and 5 <= summary.with_face <= 10
  last = list(video.frames_at_rate(out, 25))[-1]
  # Written, read, written and read: a level or two each time.
  assert np.abs(np.int16(last) - 99).max() <= 3


def test_choices(gan_run, speech, face_video, tmp_path):
  """What the original does, on demand."""
  path = str(tmp_path / "half.mp4")
  write_video(
    path, talking_frames(8) + [np.full((256, 256, 3), 99, np.uint8)] * 4
  )
  out = str(tmp_path / "out.mp4")
  with pytest.raises(
    inference.InferenceError, match="no face found in .* of 12 frames"
  ):
    inference.lipsync(gan_run[0], path, speech, out, no_face="error")
  summary = inference.lipsync(gan_run[0], path, speech, out, no_face="hold")
  assert summary.with_face == summary.frames == 20
  # 0.8 s are 65 columns: whole windows begin at -3.2, 0, ..., 48; one more.
  summary = inference.lipsync(
    gan_run[0],
    face_video,
    speech,
    out,
    ending="original",
    loop="ping_pong",
    paste="hard",
  )
  assert summary.frames == 18
  with pytest.raises(
    inference.InferenceError, match="loop is 'bounce', expected one"
  ):
    inference.lipsync(gan_run[0], face_video, speech, out, loop="bounce")


@pytest.mark.parametrize(
  ("seconds", "frames"), [(1, 22), (2, 47), (5, 122), (10, 247)]
)
def test_the_originals_frame_count(seconds, frames):
  """Its loop over windows, written out; and numbers known of it."""
  columns = 1 + seconds * 80
  for fps in (25, 29.97, 30, 50):
    count = 0
    while int(count * 80 / fps) + 16 <= columns:
      count += 1
    count += 1
    assert inference.original_frame_count(columns, fps, 16, 0) == count
  assert inference.original_frame_count(columns, 25, 16, 0) == frames


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 66, 150])
def test_videos_are_prolonged(count):
  """From the start again, or forwards and backwards."""
  for loop in ("restart", "ping_pong"):
    order = list(range(count))
    if loop == "ping_pong":
      order += order[-2:0:-1]
    expected = (order * 4)[: 3 * count + 1]
    found = itertools.islice(
      inference._looped(lambda: iter(range(count)), count, loop), len(expected)
    )
    assert list(found) == [(i, i) for i in expected]


def test_rgb_networks_draw_the_same_pictures(gan_run):
  """With their colours' weights in the other order."""
  variables, config = inference.load_generator(gan_run[0])
  rng = np.random.default_rng(0)
  size = config["image_size"]
  crops = rng.integers(0, 256, (3, size, size, 3), np.uint8)
  mels = rng.normal(size=(3, 16, 80)).astype(np.float32)
  expected = inference.FaceGenerator(config, 3)(variables, crops, mels)
  params = jax.tree.map(jnp.asarray, variables["params"])
  first = params["face_encoder_blocks_0_0"]["conv"]
  first["kernel"] = first["kernel"][:, :, jnp.array([2, 1, 0, 5, 4, 3])]
  last = params["output_block_1"]
  last |= {"kernel": last["kernel"][..., ::-1], "bias": last["bias"][::-1]}
  found = inference.FaceGenerator({**config, "channel_order": "rgb"}, 3)(
    {**variables, "params": params}, crops, mels
  )
  # Sums in another order: a number at the border may round the other way.
  difference = np.abs(np.int16(found) - expected)
  assert difference.max() <= 1 and difference.mean() < 0.01


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_batching_does_not_matter(gan_run, size):
  variables, config = inference.load_generator(gan_run[0])
  rng = np.random.default_rng(0)
  crops = rng.integers(0, 255, (20, 24, 24, 3), dtype=np.uint8)
  mels = rng.normal(size=(20, 16, 80)).astype(np.float32)
  whole = inference.FaceGenerator(config, 20)(variables, crops, mels)
  parts = inference.FaceGenerator(config, size)(variables, crops, mels)
  assert parts.shape == (20, 24, 24, 3)
  assert np.abs(np.int16(parts) - whole).max() <= 1


def test_one_reference_for_all(gan_run):
  """The networks' own answer to that pair of faces, frame by frame."""
  variables, config = inference.load_generator(gan_run[0])
  rng = np.random.default_rng(0)
  crops = rng.integers(0, 256, (5, 24, 24, 3), np.uint8)
  mel = rng.normal(size=(40, 80)).astype(np.float32)
  generator = inference.FaceGenerator(config, 2)
  model = inference.make_model(config)
  spec = config["windows"]
  found = {}
  for word in inference.CHOICES["reference"]:
    chosen = {**config, "inference": {"reference": word}}
    taken, found[word] = inference.lipsync_crops(
      generator, variables, chosen, crops, mel, 7
    )
    np.testing.assert_array_equal(taken, crops[[0, 1, 2, 3, 4, 0, 1]])
    references = taken if word == "own" else np.stack([crops[0]] * 7)
    faces = np.concatenate([taken, references], axis=-1) / np.float32(255)
    faces[:, 12:, :, :3] = 0
    mels = inference.frame_mels(
      mel, 7, 25, spec["mel_columns"], spec["inference_mel_offset"]
    )
    expected = model.apply(variables, mels.swapaxes(1, 2)[..., None], faces)
    expected = np.floor(np.asarray(expected) * 255)
    assert np.abs(found[word] - expected).max() <= 1
  assert np.abs(np.int16(found["own"]) - found["first"])[1:].max() > 1


def test_the_first_face_of_a_video_is_the_reference(
  gan_run, face_video, speech, tmp_path
):
  """Also of the frames of later batches."""
  written = []
  for size in (3, 64):
    out = str(tmp_path / f"{size}.mp4")
    inference.lipsync(
      gan_run[0],
      face_video,
      speech,
      out,
      batch_size=size,
      reference="first",
    )
    written.append(np.stack(list(video.frames_at_rate(out, 25))))
  assert np.abs(np.int16(written[0]) - written[1]).max() <= 3


# --- Bad input: a clear error, the old output intact, nothing half-written --


def lipsync_error(gan_run, tmp_path, face, speech, error):
  out = tmp_path / "out.mp4"
  out.write_bytes(b"old")
  before = sorted(os.listdir(tmp_path))
  with pytest.raises(error) as raised:
    inference.lipsync(gan_run[0], str(face), str(speech), str(out))
  assert sorted(os.listdir(tmp_path)) == before
  assert out.read_bytes() == b"old"
  return str(raised.value)


def test_no_face(gan_run, speech, tmp_path):
  path = tmp_path / "wall.mp4"
  write_video(path, [np.full((128, 128, 3), 120, np.uint8)] * 20)
  message = lipsync_error(
    gan_run, tmp_path, path, speech, inference.InferenceError
  )
  assert "wall.mp4: no face found in 20 frames" in message


def test_short_audio(gan_run, face_video, tmp_path):
  path = tmp_path / "short.wav"
  soundfile.write(path, babble(0.15), audio.SAMPLE_RATE)
  message = lipsync_error(
    gan_run, tmp_path, face_video, path, inference.InferenceError
  )
  assert "short.wav: has 0.150 s of sound" in message


def test_silence_is_speech_too(gan_run, face_video, tmp_path):
  """Digital silence is lip-synced: no error, no NaN."""
  path = tmp_path / "silence.wav"
  soundfile.write(path, np.zeros(8000), audio.SAMPLE_RATE)
  out = tmp_path / "out.mp4"
  summary = inference.lipsync(gan_run[0], face_video, str(path), str(out))
  assert summary.frames == 12


@pytest.mark.parametrize(
  ("content", "message"),
  [(b"", "is empty"), (b"no video at all" * 99, "not a video or sound file")],
)
def test_files_that_are_no_media(gan_run, face_video, speech, tmp_path, content,
                                 message):  # fmt: skip
  path = tmp_path / "fake.mp4"
  path.write_bytes(content)
  for face, sound in ((path, speech), (face_video, path)):
    found = lipsync_error(gan_run, tmp_path, face, sound, video.MediaError)
    assert "fake.mp4" in found and message in found


def test_missing_files(gan_run, face_video, speech, tmp_path):
  path = tmp_path / "none.mp4"
  for face, sound in ((path, speech), (face_video, path)):
    message = lipsync_error(gan_run, tmp_path, face, sound, video.MediaError)
    assert "none.mp4: no such file" in message


def test_truncated_face_video(gan_run, face_video, speech, tmp_path):
  path = tmp_path / "cut.mp4"
  with open(face_video, "rb") as f:
    data = f.read()
  path.write_bytes(data[: len(data) // 2])
  message = lipsync_error(gan_run, tmp_path, path, speech, video.MediaError)
  assert "cut.mp4" in message and "cut off" in message


def test_video_without_sound_as_speech(gan_run, face_video, tmp_path):
  path = tmp_path / "mute.mp4"
  write_video(path, talking_frames(10))
  message = lipsync_error(gan_run, tmp_path, face_video, path, video.MediaError)
  assert "mute.mp4: has no audio stream" in message


def test_crash_while_writing(
  gan_run, face_video, speech, tmp_path, monkeypatch
):
  """Whatever happens in the middle, no half-written file stays."""

  def fail(*args):
    raise RuntimeError("lost the device")

  monkeypatch.setattr(faces, "paste", fail)
  message = lipsync_error(gan_run, tmp_path, face_video, speech, RuntimeError)
  assert message == "lost the device"
