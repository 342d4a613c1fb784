"""Lip-syncing with a network that draws grey: every kind of input, every flag.

Results are compared as arrays or lossless files, so that "unchanged" means
equal; the network's own part is tested in inference_test.py.
"""

import os
import struct
import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import soundfile
from conftest import (
  BOX,
  babble,
  face_picture,
  talking_frames,
  wall,
  write_video,
)

from w2l_jax import (
  blending,
  inference,
  lip_syncer,
  sources,
  video,
  video_writer,
)

RATE = 16_000


@pytest.fixture(autouse=True)
def no_thread_is_left():
  before = threading.active_count()
  yield
  assert threading.active_count() <= before


@pytest.fixture(scope="module")
def speech():
  return babble(0.8, seed=5), RATE


@pytest.fixture(scope="module")
def face_video(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("face") / "face.v1.mp4")
  write_video(path, talking_frames(30, seed=9), babble(1.2, seed=9))
  return path


@pytest.fixture(scope="module")
def speech_file(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("speech") / "speech.wav")
  soundfile.write(path, babble(0.8, seed=5, rate=44100), 44100)
  return path


def changed(before, after) -> np.ndarray:
  """[T] whether each frame differs."""
  return np.array(
    [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
  )


def columns_changed(before, after) -> tuple[int, int]:
  """The first and the last column that differ in any frame."""
  different = np.any(np.stack(before) != np.stack(after), axis=(0, 1, 3))
  return tuple(np.flatnonzero(different)[[0, -1]])


def render(syncer, face, speech, **choices) -> list[np.ndarray]:
  return list(syncer.frames(face, speech, **choices))


# --- From end to end ---


def test_video_and_speech(syncer, face_video, speech_file, tmp_path):
  """As long as the speech, only the face changed, sound in place, marked."""
  out = str(tmp_path / "out.mp4")
  summary = syncer.write(
    face_video,
    speech_file,
    out,
    lossless=True,
    preview=str(tmp_path / "strip.png"),
  )
  assert summary.frames == summary.with_face == summary.faces == 20
  assert summary.scenes == 1 and not summary.silent
  assert set(summary.stage_seconds) == {
    "hear", "decode", "cuts", "detect", "crop", "generate", "paste", "encode",
  }  # fmt: skip
  report = summary.report()
  assert "20 frames, 0.80 s" in report and "generate" in report
  frames = list(video.frames_at_rate(out, 25))
  source = list(video.frames_at_rate(face_video, 25))[:20]
  assert changed(source, frames).all()
  # Around the face every pixel is the source's.
  different = np.any(np.stack(source) != np.stack(frames), axis=(0, 3))
  rows, columns = (np.flatnonzero(different.any(axis)) for axis in (1, 0))
  assert columns[0] > 70 and columns[-1] < 190
  # The eyes too: the lower half is drawn.
  assert rows[0] > 110 and rows[-1] < 200
  assert different.sum() > 3000
  waveform, rate = video.read_audio(out)
  assert rate == 44100 and abs(len(waveform) / rate - 0.8) < 0.05
  with av.open(out) as container:
    assert "Synthetic" in container.metadata["comment"]
    assert "digitalsourcetype" in container.metadata["comment"]
  assert sorted(os.listdir(tmp_path)) == ["out.mp4", "strip.png"]
  strip = cv2.imread(str(tmp_path / "strip.png"))
  assert strip.shape[0] == 360 and strip.shape[1] == 8 * 180


def test_arrays_give_what_files_give(syncer, face_video, speech):
  """And the same again: nothing depends on threads."""
  array = np.stack(list(video.frames_at_rate(face_video, 25)))
  before = array.copy()
  found = render(syncer, array, speech)
  for other in (face_video, array):
    for a, b in zip(found, render(syncer, other, speech), strict=True):
      np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(array, before)


def test_the_network_is_compiled_once(syncer, face_video, speech):
  """For videos of any length, whole batches or not."""
  generator = syncer.generator(False)
  for seconds in (0.2, 0.8):
    render(syncer, face_video, (babble(seconds), RATE), box=BOX)
  assert generator._generate._cache_size() == 1


def test_frames_can_be_left(syncer, face_video, speech):
  """Whoever stops taking frames leaves no thread behind."""
  frames = syncer.frames(face_video, speech)
  next(frames)
  frames.close()


def test_the_package_offers_it():
  import w2l_jax

  assert w2l_jax.LipSyncer is lip_syncer.LipSyncer
  with pytest.raises(AttributeError, match="no attribute 'LipSinker'"):
    w2l_jax.LipSinker  # noqa: B018


# --- Length ---


def numbered(count) -> np.ndarray:
  """Frames whose number is their colour."""
  return np.stack([np.full((64, 64, 3), 3 * i, np.uint8) for i in range(count)])


def source_numbers(frames) -> list[int]:
  return [int(f[0, 0, 0]) // 3 for f in frames]


@pytest.mark.parametrize(
  ("loop", "expected"),
  [
    ("restart", [*range(12), *range(8)]),
    ("ping_pong", [*range(12), *range(10, 2, -1)]),
    ("freeze", [*range(12), *[11] * 8]),
    ("stop", [*range(12)]),
  ],
)
def test_speech_longer_than_the_video(syncer, speech, loop, expected):
  found = render(syncer, numbered(12), speech, box=(8, 40, 8, 40), loop=loop)
  assert source_numbers(found) == expected


def test_video_longer_than_the_speech(syncer, speech):
  box = (8, 40, 8, 40)
  array = numbered(30)
  assert source_numbers(render(syncer, array, speech, box=box)) == [*range(20)]
  found = render(syncer, array, speech, box=box, rest="play")
  assert source_numbers(found) == [*range(30)]
  assert changed(array, found).tolist() == [True] * 20 + [False] * 10


@pytest.mark.parametrize(
  "fps", ["24000/1001", "30000/1001", "50", "60", "12.5"]
)
def test_frame_rates(syncer, tmp_path, fps):
  """The source's rate is kept and the length is the speech's."""
  fps = Fraction(fps)
  path, out = str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4")
  write_video(path, talking_frames(20, size=96), fps=fps)
  summary = syncer.write(path, (babble(1.0), RATE), out, box=(20, 70, 30, 66))
  assert summary.frames == round(fps)
  assert abs(summary.seconds - 1) <= 1 / fps
  assert abs(video.frame_rate(out) / fps - 1) < 1e-3
  assert len(list(video.frames_at_rate(out, float(fps)))) == summary.frames


def test_another_rate_on_demand(syncer, tmp_path):
  path = str(tmp_path / "in.mp4")
  write_video(path, talking_frames(50, size=96), fps=50)
  found = render(
    syncer, path, (babble(0.8), RATE), box=(20, 70, 30, 66), fps=25
  )
  assert len(found) == 20


def write_variable(path, frames, times):
  """A video whose frames come at these seconds."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 90_000)
    for frame, time in zip(frames, times, strict=True):
      picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
      picture.pts, picture.time_base = round(time * 90_000), Fraction(1, 90_000)
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def test_variable_frame_rate(syncer, tmp_path):
  """Frames stay where they are in time: dark for 0.6 s, then bright."""
  path = tmp_path / "in.mp4"
  times = [0, 0.04, 0.08, 0.3, 0.5, *np.arange(0.6, 1.4, 0.025)]
  frames = [np.full((64, 64, 3), 20 if t < 0.59 else 220, np.uint8)
            for t in times]  # fmt: skip
  write_variable(path, frames, times)
  out = str(tmp_path / "out.mp4")
  syncer.write(str(path), (babble(1.2), RATE), out, box=(8, 40, 8, 40))
  bright = [
    time for time, _, f in video.decode_frames(out) if f[60, 60, 0] > 100
  ]
  fps = float(video.frame_rate(out))
  assert abs(bright[0] - 0.6) <= 1.01 / fps
  assert abs(bright[-1] + 1 / fps - 1.2) <= 1.01 / fps


# --- Pictures ---


@pytest.mark.parametrize("kind", ["bgr", "grey", "alpha"])
def test_photos(syncer, speech, tmp_path, kind):
  path, photo = str(tmp_path / "photo.png"), face_picture()
  stored = expected = photo
  if kind == "grey":
    stored = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    expected = np.repeat(stored[..., None], 3, axis=2)
  elif kind == "alpha":
    opaque = np.full(photo.shape[:2], 255, np.uint8)
    opaque[:20] = 0
    stored = np.dstack([photo, opaque])
    expected = photo.copy()
    expected[:20] = 255  # White where nothing is.
  cv2.imwrite(path, stored)
  found = render(syncer, path, speech)
  assert len(found) == 20
  np.testing.assert_array_equal(found[7][:60], expected[:60])
  assert changed([expected] * 20, found).all()


def test_a_gif_that_moves_is_a_video(syncer, tmp_path):
  """And one that does not is a photo."""
  for count, frames in ((10, 10), (1, 25)):
    path = str(tmp_path / f"{count}.gif")
    with av.open(path, "w") as container:
      stream = container.add_stream("gif", rate=10)
      stream.width = stream.height = 128
      stream.pix_fmt = "gray"
      for i in range(count):
        picture = np.full((128, 128, 3), 20 * i, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        container.mux(stream.encode(frame.reformat(format="gray")))
      container.mux(stream.encode(None))
    found = render(syncer, path, (babble(1.0), RATE), box=(30, 90, 40, 80))
    assert len(found) == frames


@pytest.mark.parametrize("size", [(97, 131), (98, 131), (97, 132)])
def test_odd_sizes(syncer, speech, tmp_path, size):
  """Lossless keeps them; 4:2:0 needs a row or column more."""
  height, width = size
  array = np.stack([cv2.resize(face_picture(), (width, height))] * 5)
  for lossless in (False, True):
    out = str(tmp_path / "out.mp4")
    syncer.write(array, speech, out, box=(20, 80, 30, 90), lossless=lossless)
    shape = next(video.frames_at_rate(out, 25)).shape[:2]
    assert shape == (size if lossless else (98, 132))


@pytest.mark.parametrize(
  "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"]
)
def test_pixel_formats(syncer, speech, tmp_path, pix_fmt):
  path = str(tmp_path / "in.mp4")
  source = face_picture(128)
  with av.open(path, "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width = stream.height = 128
    stream.pix_fmt = pix_fmt
    for _ in range(5):
      frame = av.VideoFrame.from_ndarray(source, format="bgr24")
      container.mux(stream.encode(frame.reformat(format=pix_fmt)))
    container.mux(stream.encode(None))
  out = str(tmp_path / "out.mp4")
  syncer.write(path, speech, out, box=(30, 95, 40, 85))
  result = next(video.frames_at_rate(out, 25))
  # Above the box the picture is the source's, two encodings later.
  assert np.abs(result[:28].astype(int) - source[:28]).mean() < 6


# AVCOL: BT.709 is 1; BT.601 (NTSC) is 6.
@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 1, 6, 6), (1, 2, 1, 1)])
def test_colours_mean_what_they_meant(syncer, speech, tmp_path, tags):
  """Matrix and range are tagged as in the source, and levels are right."""
  colour = video.Colour(*tags)
  path, out = str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4")
  levels = ((200, 40, 30), (30, 200, 40), (40, 30, 200), (128, 128, 128))
  source = np.concatenate(
    [np.full((96, 32, 3), c, np.uint8) for c in levels], axis=1
  )
  with video_writer.VideoWriter(path, 25, colour=colour) as writer:
    for _ in range(5):
      writer.write(source)
  syncer.write(path, speech, out, box=(40, 80, 8, 48))
  for file in (path, out):
    assert video.colour(file) == colour
    found = next(video.frames_at_rate(file, 25))
    for i, level in enumerate(levels):
      error = found[10, 16 + 32 * i].astype(int) - level
      assert np.abs(error).max() <= 8  # The other matrix: 20 and more.


def test_rotated_phone_video(syncer, speech, tmp_path):
  """What is shown upright is written upright."""
  path, turned = tmp_path / "a.mp4", tmp_path / "turned.mp4"
  picture = face_picture(192)[:, :160]
  write_video(path, [cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE)] * 5)
  data = bytearray(path.read_bytes())
  # The display matrix in the track's header: clockwise.
  matrix = [0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30]
  struct.pack_into(">9i", data, data.find(b"tkhd") + 44, *matrix)
  turned.write_bytes(data)
  out = str(tmp_path / "out.mp4")
  summary = syncer.write(str(turned), speech, out)
  assert summary.with_face == 20
  found = next(video.frames_at_rate(out, 25))
  assert found.shape == picture.shape
  assert np.abs(found[:40].astype(int) - picture[:40]).mean() < 6


def test_edits_come_in_the_originals_order(syncer, speech):
  """Made smaller, turned, cut; and the box is of what remains."""
  rng = np.random.default_rng(0)
  array = rng.integers(0, 256, (3, 120, 201, 3), np.uint8)
  found = render(
    syncer,
    array,
    speech,
    box=(10, 50, 5, 45),
    edit=sources.Edit(resize_factor=2, rotate=True, crop=(20, -1, 5, 55)),
  )
  expected = [
    cv2.rotate(cv2.resize(f, (100, 60)), cv2.ROTATE_90_CLOCKWISE)[20:, 5:55]
    for f in array
  ]
  assert found[0].shape == (80, 50, 3)
  for i in range(20):
    np.testing.assert_array_equal(found[i][50:], expected[i % 3][50:])
    np.testing.assert_array_equal(found[i][:10], expected[i % 3][:10])
  with pytest.raises(sources.InferenceError, match="leaves nothing"):
    render(syncer, array, speech, edit=sources.Edit(crop=(130, -1, 0, -1)))


def test_static_takes_the_first_frame(syncer, speech):
  array = numbered(9)
  found = render(syncer, array, speech, box=(8, 40, 8, 40), static=True)
  assert source_numbers(found) == [0] * 20


def test_pads_widen_the_box(syncer, speech):
  photo = face_picture()
  sides = []
  for pads in ((0, 0, 0, 0), (0, 0, 20, 30)):
    found = render(syncer, photo, speech, pads=pads)
    sides.append(columns_changed([photo], found[:1]))
  assert sides[0][0] - sides[1][0] in (18, 19, 20, 21)
  assert sides[1][1] - sides[0][1] in (28, 29, 30, 31)


# --- Faces ---


def test_no_face(syncer, speech, tmp_path):
  path = str(tmp_path / "wall.mp4")
  write_video(path, [wall()] * 20)
  with pytest.raises(sources.InferenceError) as raised:
    syncer.write(path, speech, str(tmp_path / "out.mp4"))
  assert "wall.mp4: no face found in 20 frames" in str(raised.value)
  assert os.listdir(tmp_path) == ["wall.mp4"]


def test_a_face_that_comes_late_and_goes(syncer):
  frames = [wall()] * 10 + talking_frames(20) + [wall()] * 10
  array, sound = np.stack(frames), (babble(1.6), RATE)
  result = changed(frames, render(syncer, array, sound))
  # To the frame: the cuts are found.
  assert result.tolist() == [False] * 10 + [True] * 20 + [False] * 10
  with pytest.raises(
    sources.InferenceError, match="in 20 of 40 frames, the first at 0.00 s"
  ):
    render(syncer, array, sound, no_face="error")


def hidden(frame):
  """The same scene, the face out of focus."""
  mask = np.zeros((*frame.shape[:2], 1), np.uint8)
  cv2.ellipse(mask, (125, 125), (60, 80), 0, 0, 360, 1, -1)
  return np.where(mask, cv2.GaussianBlur(frame, (0, 0), 25), frame)


def test_short_gaps_can_be_held(syncer):
  """For half a second at most, and nothing is held by default."""
  frames = talking_frames(60)
  for i in range(15, 45):
    frames[i] = hidden(frames[i])
  array, sound = np.stack(frames), (babble(2.4), RATE)
  result = changed(frames, render(syncer, array, sound))
  assert result.tolist() == [True] * 15 + [False] * 30 + [True] * 15
  result = changed(frames, render(syncer, array, sound, no_face="hold"))
  assert result.tolist() == [True] * 27 + [False] * 18 + [True] * 15


def two_people(count) -> list[np.ndarray]:
  """A smaller face on the left, a larger one on the right, apart."""
  left = [cv2.resize(f, (192, 192)) for f in talking_frames(count, seed=3)]
  right = talking_frames(count, seed=4)
  frames = []
  for a, b in zip(left, right, strict=True):
    frame = np.full((256, 512, 3), 60, np.uint8)
    frame[32:224, :192] = a
    frame[:, 256:] = b[:, ::-1]
    frames.append(frame)
  return frames


@pytest.mark.parametrize(
  ("who", "left", "right"),
  [
    ("largest", False, True),
    ("1", True, False),
    (2, False, True),
    ("all", True, True),
    ("central", True, False),
  ],
)
def test_two_faces(syncer, who, left, right):
  frames, sound = two_people(20), (babble(0.8), RATE)
  array = np.stack(frames)
  if who == "central":  # The left one is in the middle now.
    array = np.pad(array, ((0, 0), (0, 0), (300, 0), (0, 0)))
  found = render(syncer, array, sound, faces=who)
  width = array.shape[2]
  for part, expected in (
    (slice(0, width - 256), left),
    (slice(width - 256, None), right),
  ):
    result = changed(array[:, :, part], [f[:, part] for f in found])
    assert result.all() if expected else not result.any()


def test_the_person_on_a_photo(syncer, tmp_path):
  photo = str(tmp_path / "person.png")
  frames, sound = two_people(20), (babble(0.8), RATE)
  for part, other in (
    (slice(0, 256), slice(256, 512)), (slice(256, 512), slice(0, 256)),
  ):  # fmt: skip
    cv2.imwrite(photo, frames[11][:, part])
    found = render(syncer, np.stack(frames), sound, faces=photo)
    assert changed(
      [f[:, part] for f in frames], [f[:, part] for f in found]
    ).all()
    assert not changed(
      [f[:, other] for f in frames], [f[:, other] for f in found]
    ).any()
  cv2.imwrite(photo, wall())
  with pytest.raises(sources.InferenceError, match="person.png: no face"):
    render(syncer, np.stack(frames), sound, faces=photo)


def test_a_cut_between_two_people(syncer, speech):
  """Every frame has its face, also right at the cut, and none is mixed."""
  first = [np.pad(f, ((0, 0), (0, 200), (0, 0))) for f in talking_frames(9)]
  second = [
    np.pad(f, ((0, 0), (200, 0), (0, 0)), constant_values=90)
    for f in talking_frames(11, seed=2)
  ]
  frames = first + second
  found = render(syncer, np.stack(frames), speech)
  assert changed(frames, found).all()
  assert columns_changed(first, found[:9])[1] < 200
  assert columns_changed(second, found[9:])[0] > 250


# --- Heads held aslant ---


def draws_a_mouth(variables, mels, crops, references):
  """A network that returns its crop with red where the mouth should be."""
  out = np.array(crops)
  size = crops.shape[1]
  rows, columns = (slice(int(a * size), int(b * size)) for a, b in (
    (0.72, 0.86), (0.38, 0.62)
  ))  # fmt: skip
  out[:, rows, columns] = (0, 0, 255)
  return out


def red_middle(before, after) -> np.ndarray:
  """[2] x and y of the middle of what has become red."""
  return red_points(before, after).mean(axis=0)


def red_slope(before, after) -> float:
  """Degrees by which what has become red is turned, clockwise."""
  points = red_points(before, after)
  axis = np.linalg.svd(points - points.mean(axis=0))[2][0]
  return np.degrees(np.arctan2(axis[1], axis[0]))


def red_points(before, after) -> np.ndarray:
  """[n, 2] x and y of the pixels that have lost their green."""
  points = np.argwhere(before[..., 1].astype(int) - after[..., 1] > 60)
  assert len(points) > 60
  return points[:, ::-1]


@pytest.mark.parametrize("degrees", [-25, 20])
def test_eyes_are_made_level(syncer, monkeypatch, degrees):
  """The mouth of a turned head is drawn where it is, turned, and only there."""
  upright = cv2.copyMakeBorder(
    face_picture(), 60, 60, 60, 60, cv2.BORDER_REPLICATE
  )
  turn = cv2.getRotationMatrix2D((188.0, 182.0), -degrees, 1)
  aslant = cv2.warpAffine(
    upright, turn, (376, 376), borderMode=cv2.BORDER_REPLICATE
  )
  seen = []

  def network(variables, mels, crops, references):
    seen.append(np.array(crops[0], int))
    return draws_a_mouth(variables, mels, crops, references)

  def drawn(picture, **choices):
    """The first frame, and what the network saw of it."""
    seen.clear()
    frames = render(syncer, picture, (babble(0.1), RATE), **choices)
    return frames[0], seen[0]

  syncer.generator(False).compile(syncer.variables)
  monkeypatch.setattr(inference.FaceGenerator, "compile", lambda *_: None)
  monkeypatch.setattr(syncer.generator(False), "_generate", network)
  straight, expected = drawn(upright, align_eyes=True)
  plain, tilted = drawn(aslant)
  aligned, levelled = drawn(aslant, align_eyes=True)
  # The network sees nearly what it sees of the head held upright.
  assert np.abs(levelled - expected).mean() < 0.6 * (
    np.abs(tilted - expected).mean()
  )
  mouth = turn @ [*red_middle(upright, straight), 1]
  # A twentieth of the box's height: boxes of turned heads are not just turned.
  assert np.linalg.norm(red_middle(aslant, aligned) - mouth) < 6.5
  assert np.linalg.norm(red_middle(aslant, plain) - mouth) > 10
  # It is turned itself.
  turned = red_slope(aslant, aligned) - red_slope(upright, straight)
  assert abs((turned - degrees + 90) % 180 - 90) < 5
  # Above the eyes and around the face nothing has changed.
  different = np.any(aligned != aslant, axis=2)
  assert different.sum() < 0.15 * different.size
  y, x = np.nonzero(different)
  back = cv2.invertAffineTransform(turn) @ np.stack([x, y, np.ones(len(x))])
  assert back[1].min() > 60 + 100


# --- Sound ---


def write_sound(path, waveform, rate, codec, layout, start=0.0):
  """Encodes [samples, channels]; pictures too where sound starts late."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=rate, layout=layout)
    pictures = None
    if start:
      pictures = container.add_stream("libx264", rate=25)
      pictures.width = pictures.height = 64
      pictures.pix_fmt = "yuv420p"
      for _ in range(25):
        frame = av.VideoFrame.from_ndarray(wall(64, 64), format="bgr24")
        container.mux(pictures.encode(frame))
      container.mux(pictures.encode(None))
    block = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(waveform.T), format="fltp", layout=layout
    )
    block.sample_rate, block.pts = rate, round(start * rate)
    block.time_base = Fraction(1, rate)
    converter = av.AudioResampler(stream.format, layout, rate)
    for piece in converter.resample(block):
      container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


@pytest.mark.parametrize(
  ("name", "rate", "layout", "start"),
  [
    ("a.wav", 8000, "mono", 0),
    ("a.wav", 48000, "stereo", 0),
    ("a.wav", 48000, "5.1", 0),
    ("a.flac", 22050, "stereo", 0),
    ("a.mp3", 44100, "stereo", 0),
    ("a.m4a", 48000, "5.1", 0),
    ("a.mp4", 16000, "mono", 0),
    ("a.mp4", 16000, "mono", 0.3),
  ],
)
def test_sound_of_any_kind(syncer, tmp_path, name, rate, layout, start):
  """The output is as long as the sound, which is in it, in place."""
  channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
  # A burst in silence, to see where it is.
  waveform = np.zeros((rate, channels), np.float32)
  at = slice(rate // 2, rate // 2 + rate // 10)
  waveform[at] = 0.5 * np.sin(np.arange(rate // 10) * 0.3)[:, None]
  path, out = str(tmp_path / name), str(tmp_path / "out.mp4")
  codec = {"mp3": "libmp3lame", "m4a": "aac", "mp4": "aac"}.get(name[2:])
  if codec:
    write_sound(path, waveform, rate, codec, layout, start)
  else:
    soundfile.write(path, waveform, rate)
  summary = syncer.write(numbered(3), path, out, box=(8, 40, 8, 40))
  # Codecs pad by some thousand samples.
  assert 0 <= summary.seconds - (1 + start) <= 0.04 + 3000 / rate
  back, back_rate = video.read_audio(out)
  assert back_rate == rate and back.shape[1] == min(channels, 2)
  loud = np.flatnonzero(np.abs(back[:, 0]) > 0.1) / back_rate
  assert abs(loud[0] - 0.5 - start) < 0.06
  assert abs(loud[-1] - 0.6 - start) < 0.06
  assert abs(len(back) / back_rate - summary.seconds) < 0.04 + 2048 / rate


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_very_short_sound(syncer, seconds):
  found = render(
    syncer, numbered(3), (babble(seconds), RATE), box=(8, 40, 8, 40)
  )
  assert len(found) == max(1, round(25 * seconds))


def test_no_sound_at_all(syncer, face_video, tmp_path):
  with pytest.raises(sources.InferenceError, match="0 samples"):
    render(syncer, face_video, (np.zeros(0, np.float32), RATE))
  bad = np.full(RATE, np.nan, np.float32)
  with pytest.raises(sources.InferenceError, match="not finite"):
    render(syncer, face_video, (bad, RATE))


def test_silence(syncer, face_video):
  """Digital silence is lip-synced, and told; by flag it is left alone."""
  sound = (np.zeros(RATE, np.float32), RATE)
  source = list(video.frames_at_rate(face_video, 25))[:25]
  assert changed(source, render(syncer, face_video, sound, box=BOX)).all()
  found = render(syncer, face_video, sound, box=BOX, silence="unchanged")
  assert not changed(source, found).any()


def test_pauses(syncer, monkeypatch):
  """Noise in a pause is silence to the network, or the frame is its own."""
  rng = np.random.default_rng(0)
  sound = babble(2.4, seed=1)
  pause = slice(RATE * 8 // 10, RATE * 16 // 10)
  sound[pause] = 1e-3 * rng.standard_normal(RATE * 8 // 10)
  silent = sound.copy()
  silent[pause] = 0
  array = np.stack(talking_frames(60))
  kept = render(syncer, array, (sound, RATE), box=BOX, silence="unchanged")
  result = changed(array, kept)
  assert result[:18].all() and result[43:].all()
  assert not result[25:34].any()

  def loudness(variables, mels, crops, references):
    """A network that draws how loud it is."""
    level = 30 * (mels.mean(axis=(1, 2)) + 4)
    return np.broadcast_to(level[:, None, None, None], crops.shape).astype(
      np.uint8
    )

  monkeypatch.setattr(syncer.generator(False), "_generate", loudness)
  heard, closed, digital = (
    render(syncer, array, (x, RATE), box=BOX, silence=word, paste="hard")
    for x, word in ((sound, "heard"), (sound, "closed"), (silent, "heard"))
  )
  # In the middle of the pause all windows are silent.
  for i in range(26, 33):
    np.testing.assert_array_equal(closed[i], digital[i])
  assert changed(heard[26:33], closed[26:33]).all()
  for i in (*range(12), *range(50, 60)):
    np.testing.assert_array_equal(closed[i], heard[i])


# --- Errors: nothing is half-written, the old output stays ---


def write_error(syncer, tmp_path, face, speech, error):
  out = tmp_path / "out.mp4"
  out.write_bytes(b"old")
  before = sorted(os.listdir(tmp_path))
  with pytest.raises(error) as raised:
    syncer.write(face, speech, str(out))
  assert sorted(os.listdir(tmp_path)) == before
  assert out.read_bytes() == b"old"
  return str(raised.value)


@pytest.mark.parametrize("content", ["empty", "text", "missing", "cut off"])
def test_files_that_are_no_media(
  syncer, face_video, speech_file, tmp_path, content
):
  path = tmp_path / "fake.mp4"
  message = {
    "empty": "is empty",
    "text": "not a video or sound file",
    "missing": "no such file",
    "cut off": "cut off",
  }[content]
  with open(face_video, "rb") as f:
    data = f.read()
  if content != "missing":
    path.write_bytes(
      {"empty": b"", "text": b"no video" * 99, "cut off": data[:9999]}[content]
    )
  for face, sound in ((path, speech_file), (face_video, path)):
    found = write_error(
      syncer, tmp_path, str(face), str(sound), video.MediaError
    )
    assert "fake.mp4" in found and message in found


def test_video_without_sound_as_speech(syncer, face_video, tmp_path):
  path = tmp_path / "mute.mp4"
  write_video(path, talking_frames(3, size=64))
  message = write_error(
    syncer, tmp_path, face_video, str(path), video.MediaError
  )
  assert "mute.mp4: has no audio stream" in message


@pytest.mark.parametrize("stage", ["generate", "paste", "encode"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_stage_that_fails(
  syncer, face_video, speech, tmp_path, monkeypatch, stage, error
):
  """In whatever thread: the error itself, no half-written file, no thread."""

  def fail(*args, **kwargs):
    raise error("lost the device")

  home, name = {
    "generate": (syncer.generator(False), "_generate"),
    "paste": (blending, "blend"),
    "encode": (video_writer.VideoWriter, "write"),
  }[stage]
  monkeypatch.setattr(home, name, fail)
  message = write_error(syncer, tmp_path, face_video, speech, error)
  assert message == "lost the device"


def test_outputs_that_cannot_be_written(syncer, face_video, speech, tmp_path):
  """Told before any work."""
  for name, message in (
    ("no/out.mp4", "there is no folder"),
    ("out.xyz", "expected a name that ends in .mp4"),
    ("out", "expected a name that ends in .mp4"),
  ):
    with pytest.raises(video.MediaError, match=message):
      syncer.write("nobody.mp4", speech, str(tmp_path / name))
  with pytest.raises(video.MediaError, match="ends in .png, .jpg"):
    syncer.write(
      "nobody.mp4", speech, str(tmp_path / "a.mp4"), preview="strip.txt"
    )
  assert os.listdir(tmp_path) == []


def test_an_input_is_not_overwritten(syncer, face_video, tmp_path):
  path = tmp_path / "in.mp4"
  with open(face_video, "rb") as f:
    path.write_bytes(f.read())
  before = path.read_bytes()
  os.link(path, tmp_path / "same.mp4")
  for out in ("in.mp4", "same.mp4", "./in.mp4"):
    with pytest.raises(sources.InferenceError, match="is an input too"):
      syncer.write(str(path), str(path), str(tmp_path / out))
  assert path.read_bytes() == before
  photo = tmp_path / "photo.png"
  cv2.imwrite(str(photo), face_picture())
  with pytest.raises(sources.InferenceError, match="photo.png: is an input"):
    syncer.write(
      photo, str(path), str(tmp_path / "out.mp4"), preview=str(photo)
    )
  assert cv2.imread(str(photo)).shape == (256, 256, 3)
