"""Media files: frames in order and in time, sound in place, files that are bad.

Frames carry their number as black and white blocks, which survive any codec.
"""

import os
import shutil
import struct
from fractions import Fraction

import av
import conftest
import cv2
import numpy as np
import pytest
import soundfile

from w2l_jax import video, video_writer

HEIGHT, WIDTH, BLOCK = 48, 64, 16
# Half a frame at 25 a second.
HALF_FRAME = 0.02


def code_frame(number: int, height=HEIGHT, width=WIDTH) -> np.ndarray:
  """Twelve blocks, one for each bit, in the upper left 48 x 64 pixels."""
  frame = np.full((height, width, 3), 128, np.uint8)
  for bit in range(12):
    y, x = BLOCK * (bit // 4), BLOCK * (bit % 4)
    value = 235 if number >> bit & 1 else 20
    frame[y : y + BLOCK, x : x + BLOCK] = value
  return frame


def read_code(frame: np.ndarray) -> int:
  number = 0
  for bit in range(12):
    y, x = BLOCK * (bit // 4), BLOCK * (bit % 4)
    mean = frame[y + 4 : y + 12, x + 4 : x + 12].mean()
    assert not 70 < mean < 185, "the block is neither black nor white"
    number |= int(mean > 128) << bit
  return number


def mux(
  path, frames, times, samples=None, rate=16_000, sound_start=0.0, options=None
):
  """Writes frames at any times (seconds), and sound that starts at any."""
  with av.open(str(path), "w", options=options or {}) as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 90_000)
    sound = None
    if samples is not None:
      sound = container.add_stream("aac", rate=rate, layout="mono")
    for frame, time in zip(frames, times, strict=True):
      picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
      picture.pts = round(time * 90_000)
      picture.time_base = Fraction(1, 90_000)
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
    if sound is not None:
      block = av.AudioFrame.from_ndarray(
        samples[None].astype(np.float32), format="fltp", layout="mono"
      )
      block.sample_rate = rate
      block.pts = round(sound_start * rate)
      block.time_base = Fraction(1, rate)
      container.mux(sound.encode(block))
      container.mux(sound.encode(None))


def faststart(source, target):
  """Copies an mp4 with its index in front."""
  with (
    av.open(str(source)) as old,
    av.open(str(target), "w", options={"movflags": "+faststart"}) as new,
  ):
    streams = [new.add_stream_from_template(s) for s in old.streams]
    for packet in old.demux():
      if packet.dts is not None:
        packet.stream = streams[packet.stream.index]
        new.mux(packet)
  data = target.read_bytes()
  assert data.find(b"moov") < data.find(b"mdat")


def click(seconds: float, at: float, rate=16_000) -> np.ndarray:
  """Silence with a burst of a millisecond that begins at `at` seconds."""
  samples = np.zeros(round(seconds * rate), np.float32)
  samples[round(at * rate) : round(at * rate) + rate // 1000] = 0.9
  return samples


def nearest_errors(codes, times, fps) -> list[float]:
  """How much farther than the nearest frame the chosen one is, for each."""
  times = np.asarray(times, np.float64) - times[0]
  return [
    abs(times[code] - k / fps) - np.abs(times - k / fps).min()
    for k, code in enumerate(codes)
  ]


# Writing and reading back.


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_come_back_in_order(tmp_path, suffix):
  path = tmp_path / f"a{suffix}"
  conftest.write_video(path, [code_frame(i) for i in range(70)])
  assert [read_code(f) for f in video.frames_at_rate(path, 25)] == [*range(70)]
  decoded = list(video.decode_frames(path))
  assert [read_code(frame) for _, _, frame in decoded] == [*range(70)]
  times = np.array([time for time, _, _ in decoded])
  assert np.abs(times - np.arange(70) / 25).max() < 0.0006
  assert np.abs([d - 1 / 25 for _, d, _ in decoded]).max() < 0.0011
  for _, _, frame in decoded:
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert frame.dtype == np.uint8
  assert video.frame_rate(path) == 25
  assert video.has_video(path)


def test_paths_may_be_strings_and_odd(tmp_path):
  path = str(tmp_path / "a b.c 'é%d:.mp4")
  conftest.write_video(path, [code_frame(i) for i in range(3)])
  assert [read_code(f) for f in video.frames_at_rate(path, 25)] == [0, 1, 2]
  assert os.listdir(tmp_path) == [os.path.basename(path)]


def test_colours_are_blue_green_red(tmp_path):
  frame = np.zeros((64, 96, 3), np.uint8)
  frame[:, :32] = (220, 30, 30)
  frame[:, 32:64] = (30, 220, 30)
  frame[:, 64:] = (30, 30, 220)
  conftest.write_video(tmp_path / "a.mp4", [frame] * 3)
  for back in video.frames_at_rate(tmp_path / "a.mp4", 25):
    for x in (16, 48, 80):
      error = back[32, x].astype(int) - frame[32, x].astype(int)
      assert np.abs(error).max() < 12


def test_quality(tmp_path):
  frames = conftest.talking_frames(5)
  conftest.write_video(tmp_path / "a.mp4", frames)
  back = list(video.frames_at_rate(tmp_path / "a.mp4", 25))
  for a, b in zip(frames, back, strict=True):
    assert np.abs(a.astype(float) - b).mean() < 4


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (48, 65), (49, 64)])
def test_odd_sizes_are_padded_to_even(tmp_path, size):
  height, width = size
  rng = np.random.default_rng(0)
  # Smooth, so that colours at half resolution do not matter.
  small = rng.integers(40, 216, (2, 2, 3), dtype=np.uint8)
  frame = cv2.resize(small, (width, height))
  conftest.write_video(tmp_path / "a.mp4", [frame] * 3)
  back = list(video.frames_at_rate(tmp_path / "a.mp4", 25))
  assert len(back) == 3
  assert back[0].shape == (height + height % 2, width + width % 2, 3)
  inside = back[0][:height, :width].astype(float)
  assert np.abs(inside - frame).mean() < 6
  # What was added repeats the border.
  border = back[0][-1, :width].astype(float)
  assert np.abs(border - frame[-1]).mean() < 12


# Constant rates.


@pytest.mark.parametrize(
  "rate",
  [
    Fraction(24_000, 1001),
    Fraction(25),
    Fraction(30_000, 1001),
    Fraction(30),
    Fraction(50),
  ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("fps", [25, 30])
def test_each_frame_is_the_nearest_in_time(tmp_path, rate, suffix, fps):
  path, count = tmp_path / f"a{suffix}", 61
  conftest.write_video(path, [code_frame(i) for i in range(count)], fps=rate)
  assert abs(video.frame_rate(path) / rate - 1) < 0.001
  codes = [read_code(f) for f in video.frames_at_rate(path, fps)]
  assert len(codes) == round(count / rate * fps)
  # Matroska rounds times to a millisecond.
  errors = nearest_errors(codes, [i / float(rate) for i in range(count)], fps)
  assert max(errors) < 0.0021
  assert codes == sorted(codes)
  if rate == fps:
    assert codes == list(range(count))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("start", [0.0, 0.4])
def test_variable_frame_rate(tmp_path, suffix, start):
  rng = np.random.default_rng(1)
  gaps = rng.choice([0.008, 0.02, 0.033, 0.05, 0.11, 0.37], 50)
  times = start + np.concatenate([[0], np.cumsum(gaps)])
  path = tmp_path / f"a{suffix}"
  mux(path, [code_frame(i) for i in range(51)], times)
  codes = [read_code(f) for f in video.frames_at_rate(path, 25)]
  length = times[-1] - times[0]
  # To the last frame, which may stay for a while.
  assert length * 25 <= len(codes) <= (length + 0.5) * 25
  assert max(nearest_errors(codes, times, 25)) < 0.0021
  # Some frames were left out, others repeated.
  assert len(set(codes)) < 51
  assert len(set(codes)) < len(codes)


def test_a_frame_that_lasts_for_an_hour_is_an_error(tmp_path):
  path = tmp_path / "a.mp4"
  mux(path, [code_frame(i) for i in range(3)], [0, 0.04, 3600])
  with pytest.raises(video.MediaError, match="time stamps jump") as caught:
    for _ in video.frames_at_rate(path, 25):
      pass
  assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("fps", [25, 30])
def test_entering_in_the_middle(tmp_path, suffix, fps):
  """From any frame on, the frames that follow when read from the start."""
  path = tmp_path / f"a{suffix}"
  options = {"g": "20", "bf": "2"}
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25, options=options)
    stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
    for i in range(90):
      frame = av.VideoFrame.from_ndarray(code_frame(i), format="bgr24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  whole = [read_code(f) for f in video.frames_at_rate(path, fps)]
  for first in (1, 7, 20, 41, 63, 88):
    found = [read_code(f) for f in video.frames_at_rate(path, fps, first)]
    assert found == whole[first:]


# Sound.


def tone(hertz, seconds, rate, amplitude=0.5):
  return amplitude * np.sin(
    2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate
  )


def pitch(samples, rate):
  """Frequency of the loudest component in the middle."""
  middle = samples[len(samples) // 4 : -len(samples) // 4]
  spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 18))
  return np.argmax(spectrum) * rate / (1 << 18)


@pytest.mark.parametrize("rate", [16_000, 44_100, 12_345, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_comes_back(tmp_path, rate, channels):
  wanted = [440.0, 1230.0][:channels]
  waveform = np.stack([tone(f, 2, rate) for f in wanted], axis=1)
  path = tmp_path / "a.mp4"
  conftest.write_video(
    path,
    [code_frame(i) for i in range(50)],
    waveform[:, 0] if channels == 1 else waveform,
    sample_rate=rate,
  )
  back, back_rate = video.read_audio(path)
  assert back.dtype == np.float32
  assert back.shape[1] == channels
  # AAC writes whole blocks of 1024 samples.
  assert 2 <= len(back) / back_rate < 2 + 1024 / back_rate + 0.01
  for channel, hertz in enumerate(wanted):
    samples = back[:, channel]
    assert abs(pitch(samples, back_rate) - hertz) < 1
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert abs(np.sqrt(2 * np.mean(middle**2)) - 0.5) < 0.02
    # In phase, to an eighth of a millisecond.
    times = np.arange(len(samples)) / back_rate
    part = slice(len(samples) // 4, len(samples) // 2)
    sine = np.sum(samples[part] * np.sin(2 * np.pi * hertz * times[part]))
    cosine = np.sum(samples[part] * np.cos(2 * np.pi * hertz * times[part]))
    delay = np.arctan2(cosine, sine) / (2 * np.pi * hertz)
    assert abs(delay) < 1 / 8000


def test_six_channels_are_mixed(tmp_path):
  waveform = np.stack([tone(600, 1, 16_000)] * 6, axis=1)
  conftest.write_video(
    tmp_path / "a.mp4", [code_frame(i) for i in range(25)], waveform
  )
  back, rate = video.read_audio(tmp_path / "a.mp4")
  assert back.shape[1] == 1
  assert abs(pitch(back[:, 0], rate) - 600) < 1


def test_films_become_stereo_on_demand(tmp_path):
  """5.1: speech in the centre is half as loud on each side; bass is left out.

  FFmpeg's order: left, right, centre, bass, surround left, surround right.
  """
  path = tmp_path / "film.wav"
  waveform = np.zeros((16_000, 6), np.float32)
  waveform[:4000, 2], waveform[4000:8000, 0] = 0.6, 0.5
  waveform[8000:12000, 3], waveform[12000:, 5] = 0.4, 0.3
  soundfile.write(path, waveform, 16_000)
  found = np.concatenate(list(video.audio_blocks(path, stereo=True)))
  expected = np.zeros((16_000, 2))
  expected[:4000] = 0.3
  expected[4000:8000, 0] = 0.5 * 0.5**0.5
  expected[12000:, 1] = 0.15
  np.testing.assert_allclose(found, expected, atol=1e-4)
  np.testing.assert_allclose(video.read_audio(path)[0], waveform, atol=1e-4)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("seconds", [0.3, 1.0, 5.0])
def test_sound_shorter_or_longer_than_the_pictures(tmp_path, suffix, seconds):
  path = tmp_path / f"a{suffix}"
  waveform = tone(500, seconds, 16_000)
  conftest.write_video(path, [code_frame(i) for i in range(25)], waveform)
  assert len(list(video.frames_at_rate(path, 25))) == 25
  back, rate = video.read_audio(path)
  expected = min(seconds, 1.0)
  assert expected - 0.01 <= len(back) / rate < expected + 0.08


def test_sound_that_is_too_loud_is_clipped(tmp_path):
  waveform = 10 * tone(500, 1, 16_000)
  conftest.write_video(
    tmp_path / "a.mp4", [code_frame(i) for i in range(25)], waveform
  )
  back, _ = video.read_audio(tmp_path / "a.mp4")
  assert np.abs(back).max() < 1.5


@pytest.mark.parametrize(
  ("name", "kind", "tolerance"),
  [
    ("a.wav", "PCM_16", 1e-4),
    ("a.wav", "PCM_24", 1e-5),
    ("a.wav", "PCM_U8", 1e-2),
    ("a.wav", "FLOAT", 1e-6),
    ("a.flac", "PCM_16", 1e-4),
    ("a.ogg", "VORBIS", 0.05),
    ("a.mp3", "MPEG_LAYER_III", 0.05),
  ],
)
def test_sound_files(tmp_path, name, kind, tolerance):
  x = np.stack([tone(300, 1, 16_000), tone(700, 1, 16_000, 0.2)], axis=1)
  soundfile.write(tmp_path / name, x, 16_000, subtype=kind)
  back, rate = video.read_audio(tmp_path / name)
  assert rate == 16_000
  assert back.dtype == np.float32
  assert back.shape[1] == 2
  assert abs(len(back) - 16_000) < 1200
  assert np.abs(back[1000:15_000] - x[1000:15_000]).max() < tolerance
  assert not video.has_video(tmp_path / name)


# Sound beside pictures.


def flash_time(path, fps=25.0) -> float:
  """When the picture turns white, in frames_at_rate's time."""
  bright = [f.mean() > 128 for f in video.frames_at_rate(path, fps)]
  assert any(bright)
  return bright.index(True) / fps


def click_time(path) -> float:
  """When the click comes, in read_audio's time."""
  waveform, rate = video.read_audio(path)
  return int(np.argmax(np.abs(waveform[:, 0]))) / rate


def flash_frames(count: int, at: int) -> list:
  black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  return [np.full_like(black, 255) if i == at else black for i in range(count)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
  ("video_start", "sound_start"),
  [(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.7, 0.2), (0.2, 0.7)],
)
def test_the_click_stays_with_the_flash(
  tmp_path, suffix, video_start, sound_start
):
  path = tmp_path / f"a{suffix}"
  # On the file's clock the flash is at this time.
  flash = video_start + 30 / 25
  mux(
    path,
    flash_frames(60, at=30),
    video_start + np.arange(60) / 25,
    click(2.9 - sound_start, flash - sound_start),
    sound_start=sound_start,
  )
  # The file is what it should be.
  starts = []
  for kind in ("video", "audio"):
    with av.open(str(path)) as container:
      starts.append(float(next(container.decode(**{kind: 0})).time))
  assert abs((starts[1] - starts[0]) - (sound_start - video_start)) < 0.07
  assert flash_time(path) == 30 / 25
  assert abs(click_time(path) - 30 / 25) < HALF_FRAME


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_the_writer_keeps_the_click_with_the_flash(tmp_path, suffix, rate):
  path = tmp_path / f"a{suffix}"
  conftest.write_video(
    path,
    flash_frames(50, at=30),
    click(2.0, 1.2, rate),
    sample_rate=rate,
  )
  assert flash_time(path) == 1.2
  assert abs(click_time(path) - 1.2) < 0.005


def test_the_click_stays_with_the_flash_at_another_rate(tmp_path):
  path = tmp_path / "a.mp4"
  rate = Fraction(30_000, 1001)
  conftest.write_video(
    path,
    flash_frames(300, at=290),
    click(10, 290 / float(rate)),
    fps=rate,
  )
  assert abs(flash_time(path) - 290 / float(rate)) < HALF_FRAME
  assert abs(click_time(path) - flash_time(path)) < HALF_FRAME


def test_a_hole_in_the_sound_stays_a_hole(tmp_path):
  path = tmp_path / "a.mkv"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
    for start, at in ((0.0, 0.25), (2.0, 0.5)):
      samples = (click(1.0, at) * 30_000).astype(np.int16)
      for i in range(0, 16_000, 400):
        block = av.AudioFrame.from_ndarray(
          samples[None, i : i + 400], format="s16", layout="mono"
        )
        block.sample_rate = 16_000
        block.pts = round(start * 16_000) + i
        block.time_base = Fraction(1, 16_000)
        container.mux(stream.encode(block))
    container.mux(stream.encode(None))
  waveform, rate = video.read_audio(path)
  loud = np.flatnonzero(np.abs(waveform[:, 0]) > 0.5) / rate
  assert abs(len(waveform) / rate - 3) < 0.01
  assert abs(loud[0] - 0.25) < 0.01
  assert abs(loud[-1] - 2.5) < 0.01


def test_sound_that_ends_before_the_pictures_begin(tmp_path):
  path = tmp_path / "a.mp4"
  mux(
    path,
    flash_frames(10, at=3),
    5 + np.arange(10) / 25,
    click(1.0, 0.5),
  )
  with pytest.raises(video.MediaError, match="before its first frame") as e:
    video.read_audio(path)
  assert str(path) in str(e.value)


# Edited and turned files.


def patch(path, target, marker: bytes, change) -> None:
  """Rewrites bytes behind the first `marker` of a file."""
  data = bytearray(path.read_bytes())
  at = data.find(marker)
  assert at > 0
  change(data, at + len(marker))
  target.write_bytes(data)


def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path):
  """Trimming without encoding hides frames; the header still counts them."""
  path, trimmed = tmp_path / "a.mp4", tmp_path / "trimmed.mp4"
  conftest.write_video(path, [code_frame(i) for i in range(50)])
  with av.open(str(path)) as container:
    ticks = 1 / container.streams.video[0].time_base

  def hide_a_second(data, at):
    # Version, number of entries, then length and start of the first.
    length, start = struct.unpack_from(">Ii", data, at + 8)
    struct.pack_into(">Ii", data, at + 8, length // 2, start + int(ticks))

  patch(path, trimmed, b"elst", hide_a_second)
  codes = [read_code(f) for f in video.frames_at_rate(trimmed, 25)]
  assert codes == list(range(25, 50))


# Of the display matrix in a track's header: a b u, c d v, tx ty w.  It maps
# (x, y) to (a x + c y, b x + d y), where y goes downwards.
TURNS = {
  "none": ((1, 0, 0, 1), None),
  "clockwise": ((0, 1, -1, 0), cv2.ROTATE_90_CLOCKWISE),
  "upside down": ((-1, 0, 0, -1), cv2.ROTATE_180),
  "counter-clockwise": ((0, -1, 1, 0), cv2.ROTATE_90_COUNTERCLOCKWISE),
}


@pytest.mark.parametrize("turn", TURNS)
def test_display_rotation_is_applied(tmp_path, turn):
  path, turned = tmp_path / "a.mp4", tmp_path / "turned.mp4"
  frame = np.full((48, 80, 3), 30, np.uint8)
  frame[:16, :16] = (200, 60, 60)
  frame[:16, -16:] = (60, 200, 60)
  conftest.write_video(path, [frame] * 4)
  (a, b, c, d), rotation = TURNS[turn]

  def change(data, at):
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    struct.pack_into(">9i", data, at + 40, *matrix)

  patch(path, turned, b"tkhd", change)
  expected = frame if rotation is None else cv2.rotate(frame, rotation)
  back = list(video.frames_at_rate(turned, 25))
  assert len(back) == 4
  for image in back:
    assert image.shape == expected.shape
    assert image.flags.c_contiguous
    assert np.abs(image.astype(float) - expected).mean() < 5


# What the writer leaves behind.


def test_nothing_is_left_when_the_block_raises(tmp_path):
  path = tmp_path / "a.mp4"
  with (
    pytest.raises(RuntimeError, match="mine"),
    video_writer.VideoWriter(path, 25, np.zeros(16_000)) as writer,
  ):
    for i in range(60):
      writer.write(code_frame(i))
    # The file has its final name only at the end.
    assert not path.exists()
    assert len(os.listdir(tmp_path)) == 1
    raise RuntimeError("mine")
  assert os.listdir(tmp_path) == []


def test_nothing_is_left_when_nothing_was_written(tmp_path):
  path = tmp_path / "a.mp4"
  with (
    pytest.raises(video.MediaError, match="no frame was written") as caught,
    video_writer.VideoWriter(path, 25),
  ):
    pass
  assert str(path) in str(caught.value)
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("when", ["raises", "empty", "interrupt"])
def test_the_old_file_stays_intact(tmp_path, when):
  path = tmp_path / "a.mp4"
  path.write_bytes(b"old")
  error = {
    "raises": RuntimeError, "empty": video.MediaError,
    "interrupt": KeyboardInterrupt,
  }[when]  # fmt: skip
  with pytest.raises(error), video_writer.VideoWriter(path, 25) as writer:
    if when != "empty":
      for i in range(30):
        writer.write(code_frame(i))
      raise error
  assert os.listdir(tmp_path) == ["a.mp4"]
  assert path.read_bytes() == b"old"


def test_a_whole_file_replaces_the_old_one(tmp_path):
  path = tmp_path / "a.mp4"
  path.write_bytes(b"old")
  conftest.write_video(path, [code_frame(i) for i in range(5)])
  assert [read_code(f) for f in video.frames_at_rate(path, 25)] == [*range(5)]
  assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("written", [0, 1])
@pytest.mark.parametrize(
  "wrong",
  [
    np.zeros((HEIGHT, WIDTH, 3), np.float32),
    np.zeros((HEIGHT, WIDTH), np.uint8),
    np.zeros((HEIGHT, WIDTH, 4), np.uint8),
  ],
)
def test_frames_that_are_no_pictures(tmp_path, wrong, written):
  with (
    pytest.raises(ValueError, match=f"frame {written} is .*expected uint8"),
    video_writer.VideoWriter(tmp_path / "a.mp4", 25) as writer,
  ):
    for i in range(written):
      writer.write(code_frame(i))
    writer.write(wrong)
  assert os.listdir(tmp_path) == []


def test_frames_of_another_size(tmp_path):
  with (
    pytest.raises(ValueError, match=r"frame 1 is .*\(48, 66, 3\), expected"),
    video_writer.VideoWriter(tmp_path / "a.mp4", 25) as writer,
  ):
    writer.write(code_frame(0))
    writer.write(code_frame(1, width=WIDTH + 2))
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  "name", ["no/such/folder/a.mp4", "file/a.mp4", "a", "a.nosuchformat"]
)
def test_files_that_cannot_be_written(tmp_path, name):
  (tmp_path / "file").write_text("not a folder")
  path = tmp_path / name
  with pytest.raises(video.MediaError, match="cannot be written") as caught:
    conftest.write_video(path, [code_frame(0)], np.zeros(640))
  assert str(path) in str(caught.value)
  assert os.listdir(tmp_path) == ["file"]


def test_a_folder_without_permission(tmp_path):
  folder = tmp_path / "locked"
  folder.mkdir()
  folder.chmod(0o555)
  try:
    if os.access(folder, os.W_OK):
      pytest.skip("this user may write anywhere")
    with pytest.raises(video.MediaError, match="cannot be written") as caught:
      conftest.write_video(folder / "a.mp4", [code_frame(0)])
    assert str(folder / "a.mp4") in str(caught.value)
    assert os.listdir(folder) == []
  finally:
    folder.chmod(0o755)


# Still pictures.


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_read_image(tmp_path, suffix):
  photo = conftest.face_picture(64)
  cv2.imwrite(str(tmp_path / f"a{suffix}"), photo)
  back = video.read_image(tmp_path / f"a{suffix}")
  assert back.shape == photo.shape
  assert back.dtype == np.uint8
  error = np.abs(back.astype(float) - photo)
  assert error.max() == 0 or (suffix == ".jpg" and error.mean() < 4)


def test_grey_pictures_have_three_channels(tmp_path):
  grey = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
  cv2.imwrite(str(tmp_path / "a.png"), grey)
  back = video.read_image(tmp_path / "a.png")
  np.testing.assert_array_equal(back, np.stack([grey] * 3, axis=2))


def test_read_image_of_anything_else(tmp_path):
  conftest.write_video(tmp_path / "a.mp4", [code_frame(0)] * 3)
  (tmp_path / "a.txt").write_text("hello")
  (tmp_path / "text.jpg").write_text("hello")
  (tmp_path / "empty.png").write_bytes(b"")
  for name in ("a.mp4", "a.txt", "text.jpg", "empty.png", "missing.png", "."):
    assert video.read_image(tmp_path / name) is None, name


# Bad files.


def read_frames(path):
  return list(video.decode_frames(path))


READERS = {
  "frames": read_frames,
  "at rate": lambda path: list(video.frames_at_rate(path, 25)),
  "sound": video.read_audio,
  "has_video": video.has_video,
  "frame_rate": video.frame_rate,
}


def expect_error(read, path, match=None) -> None:
  with pytest.raises(video.MediaError, match=match) as caught:
    read(path)
  assert str(caught.value).startswith(f"{path}: ")
  assert len(str(caught.value)) > len(str(path)) + 10


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
  """A good mp4, two seconds long with sound, and its twin, index in front."""
  folder = tmp_path_factory.mktemp("talking")
  conftest.write_video(
    folder / "end.mp4", conftest.talking_frames(50, size=96), conftest.babble(2)
  )
  faststart(folder / "end.mp4", folder / "front.mp4")
  shutil.copy(folder / "end.mp4", folder / "copy.mp4")
  return folder


@pytest.mark.parametrize("reader", READERS)
def test_no_such_file_folders_empty_files_and_text(tmp_path, reader):
  read = READERS[reader]
  expect_error(read, tmp_path / "missing.mp4", "no such file")
  expect_error(read, tmp_path, "a folder")
  empty = tmp_path / "empty.mp4"
  empty.write_bytes(b"")
  expect_error(read, empty, "empty")
  text = tmp_path / "text.mp4"
  text.write_text("These are words, and no video at all.\n" * 100)
  expect_error(read, text, "not a video or sound file")
  noise = tmp_path / "noise.mp4"
  rng = np.random.default_rng(0)
  noise.write_bytes(rng.integers(0, 256, 5000, dtype=np.uint8).tobytes())
  expect_error(read, noise)


@pytest.mark.parametrize("part", [0.0005, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("reader", READERS)
def test_cut_off_before_the_index(talking, tmp_path, reader, part):
  data = (talking / "end.mp4").read_bytes()
  path = tmp_path / "cut.mp4"
  path.write_bytes(data[: int(part * len(data))])
  expect_error(READERS[reader], path, "cut off")


@pytest.mark.parametrize("part", [0.1, 0.25, 0.4, 0.5, 0.6, 0.75])
@pytest.mark.parametrize("reader", ["frames", "at rate", "sound"])
def test_cut_off_behind_the_index(talking, tmp_path, reader, part):
  data = (talking / "front.mp4").read_bytes()
  path = tmp_path / "cut.mp4"
  path.write_bytes(data[: int(part * len(data))])
  expect_error(READERS[reader], path, "cut off|has no frames|has no samples")


@pytest.mark.parametrize("name", ["end.mp4", "front.mp4", "copy.mp4"])
def test_the_files_are_good_when_whole(talking, name):
  assert len(read_frames(talking / name)) == 50
  waveform, rate = video.read_audio(talking / name)
  assert abs(len(waveform) / rate - 2) < 0.1


def test_cut_off_anywhere_in_the_index(tmp_path):
  """Whatever half an index says: a MediaError, or what there is."""
  path = tmp_path / "cut.mp4"
  conftest.write_video(
    path, [code_frame(i) for i in range(10)], conftest.babble(0.4)
  )
  data = path.read_bytes()
  start = data.find(b"moov")
  refused = 0
  for length in range(start, len(data), 29):
    path.write_bytes(data[:length])
    for read in READERS.values():
      try:
        read(path)
      except video.MediaError as e:
        assert str(e).startswith(f"{path}: ")
        refused += 1
  assert refused > 100


@pytest.mark.parametrize("part", [(0.0, 1.0), (0.3, 0.6), (0.9, 1.0)])
@pytest.mark.parametrize("reader", ["frames", "at rate", "sound"])
def test_damaged_in_the_middle(talking, tmp_path, reader, part):
  """Zeros in the place of pictures and sound."""
  data = bytearray((talking / "front.mp4").read_bytes())
  first = data.find(b"mdat") + 4
  start, end = (first + int(x * (len(data) - first)) for x in part)
  data[start:end] = bytes(end - start)
  path = tmp_path / "zeros.mp4"
  path.write_bytes(data)
  expect_error(READERS[reader], path, "damaged or cut off")


def test_sound_only_has_no_frames(tmp_path):
  path = tmp_path / "a.wav"
  soundfile.write(path, np.zeros(8000), 16_000)
  for reader in ("frames", "at rate", "frame_rate"):
    expect_error(READERS[reader], path, "has no video stream")
  m4a = tmp_path / "a.mp4"
  with av.open(str(m4a), "w") as container:
    stream = container.add_stream("aac", rate=16_000, layout="mono")
    block = av.AudioFrame.from_ndarray(
      np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
    )
    block.sample_rate = 16_000
    container.mux(stream.encode(block))
    container.mux(stream.encode(None))
  expect_error(read_frames, m4a, "has no video stream")
  assert not video.has_video(m4a)
  assert len(video.read_audio(m4a)[0]) >= 8000


def test_pictures_only_have_no_sound(tmp_path):
  path = tmp_path / "a.mp4"
  conftest.write_video(path, [code_frame(i) for i in range(5)])
  expect_error(video.read_audio, path, "has no audio stream")


def test_codecs_that_are_not_known(talking, tmp_path):
  data = (talking / "end.mp4").read_bytes()
  path = tmp_path / "a.mp4"
  path.write_bytes(data.replace(b"avc1\0\0\0\0\0", b"zzzz\0\0\0\0\0"))
  assert path.read_bytes() != data
  expect_error(read_frames, path)
  with pytest.raises(video.MediaError):
    list(video.frames_at_rate(path, 25))
