"""One video's records against the pictures and the sound it was made of."""

import dataclasses
import hashlib
import io
import json

import av
import cv2
import numpy as np
import pytest
import soundfile
from conftest import (
  SAMPLE_RATE,
  SETTINGS,
  babble,
  face_picture,
  talking_frames,
  write_video,
)

from data_prep import clips
from data_prep import records as records_lib
from w2l_jax import audio

SIZE = SETTINGS.image_size
# Where the face is in conftest's picture, seen by eye; it sways by 4 pixels.
FACE = (86, 75, 172, 182)
EYES_AND_MOUTH = ((107, 104), (151, 107), (125, 153))
GREY = np.full((256, 256, 3), 128, np.uint8)


def make(folder, file: str) -> list[records_lib.Record]:
  return clips.make_records(str(folder), file, file.rsplit(".", 1)[0], SETTINGS)


def decode_video(path) -> list[np.ndarray]:
  """Every frame of the file as it is, by PyAV alone."""
  with av.open(str(path)) as container:
    return [f.to_ndarray(format="bgr24") for f in container.decode(video=0)]


def decode_sound(path) -> np.ndarray:
  """The sound from time 0 on, by PyAV alone; mono at 16 kHz as written."""
  with av.open(str(path)) as container:
    frames = list(container.decode(audio=0))
  waveform = np.concatenate([f.to_ndarray()[0] for f in frames])
  first = round(frames[0].time * SAMPLE_RATE)
  assert frames[0].sample_rate == SAMPLE_RATE and first <= 0
  return waveform[-first:]


def decode_jpeg(data: bytes) -> np.ndarray:
  return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def cut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
  """The crop rule: whole pixels, truncated, squashed to a square."""
  x1, y1, x2, y2 = (int(v) for v in box)
  return cv2.resize(frame[y1:y2, x1:x2], (SIZE, SIZE))


def check_crops(record: records_lib.Record, source: list[np.ndarray]) -> None:
  """Each crop is its own source frame's: the very same JPEG."""
  assert len(record.frames) == len(source) == len(record.boxes)
  for i, (data, frame, box) in enumerate(
    zip(record.frames, source, record.boxes, strict=True)
  ):
    face = cut(frame, box)
    _, jpeg = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert data == jpeg.tobytes(), i
    # 4:2:0 costs two grey levels in pictures this small.
    assert np.abs(decode_jpeg(data).astype(np.float32) - face).mean() < 3, i
  assert len(set(record.frames)) > 0.9 * len(source)


def lag(a: np.ndarray, b: np.ndarray, reach: int = 1700) -> int:
  """Shift of `a` against `b`, in samples, at which they agree best."""
  shifts = np.arange(-reach, reach + 1)
  middle = a[reach : min(len(a), len(b)) - reach]
  dots = [
    float(middle @ b[reach - s : reach - s + len(middle)]) for s in shifts
  ]
  best = int(np.argmax(dots))
  inside = b[reach - shifts[best] :][: len(middle)]
  norm = np.linalg.norm(middle) * np.linalg.norm(inside)
  assert dots[best] > 0.6 * norm  # AAC keeps most of the noise.
  return int(shifts[best])


# --- A good clip -------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
  """(path, what was written as sound, its only record) of a 1.2 s clip."""
  folder = tmp_path_factory.mktemp("good")
  (folder / "anna").mkdir()
  waveform = babble(1.2, seed=3)
  write_video(
    folder / "anna" / "hello.mp4", talking_frames(30, seed=3), waveform
  )
  (record,) = make(folder, "anna/hello.mp4")
  return folder / "anna" / "hello.mp4", waveform, record


def test_crops_are_the_frames_own(good):
  path, _, record = good
  assert len(record.frames) == 30
  assert all(
    decode_jpeg(data).shape == (SIZE, SIZE, 3) for data in record.frames
  )
  check_crops(record, decode_video(path))


def test_mel_is_the_sources(good):
  path, _, record = good
  sound = decode_sound(path)[: 30 * 640]
  assert record.mel.dtype == np.float32
  assert record.mel.shape == (1 + len(sound) // 200, 80)
  np.testing.assert_array_equal(record.mel, audio.log_mel(sound))


def test_audio_is_the_sources_and_in_place(good):
  path, written, record = good
  sound, rate = soundfile.read(io.BytesIO(record.audio), dtype="float32")
  assert rate == 16_000 and record.audio.startswith(b"fLaC")
  expected = decode_sound(path)[: 30 * 640]
  assert sound.shape == expected.shape
  # Sixteen bits: half a step, or a whole one at full scale.
  np.testing.assert_allclose(sound, np.clip(expected, -1, 1), atol=1.01 / 32768)
  assert lag(sound, written) == 0


def test_boxes_are_around_the_face(good):
  _, _, record = good
  assert record.boxes.shape == (30, 4) and record.boxes.dtype == np.float32
  for x1, y1, x2, y2 in record.boxes:
    assert 0 <= x1 < x2 <= 256 and 0 <= y1 < y2 <= 256
    for x, y in EYES_AND_MOUTH:
      assert x1 + 4 < x < x2 - 4 and y1 + 4 < y < y2 - 4
    width = min(x2, FACE[2]) - max(x1, FACE[0])
    height = min(y2, FACE[3]) - max(y1, FACE[1])
    area = (x2 - x1) * (y2 - y1) + (FACE[2] - FACE[0]) * (FACE[3] - FACE[1])
    assert width * height / (area - width * height) > 0.7


def test_where_it_comes_from(good):
  path, _, record = good
  assert record.id == "anna/hello"
  assert record.file == "anna/hello.mp4"
  assert record.speaker == "anna"
  assert record.start == 0
  assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  settings = json.loads(record.settings)
  assert settings["image_size"] == SIZE and settings["detector"] == "mtcnn"


def test_other_settings_are_followed(good):
  path, _, record = good
  settings = dataclasses.replace(
    SETTINGS,
    image_size=2 * SIZE,
    detector="haar",
    audio_padding="constant",
    jpeg_quality=40,
  )
  assert settings.key() != SETTINGS.key()
  (other,) = clips.make_records(str(path.parent), path.name, "hello", settings)
  assert decode_jpeg(other.frames[0]).shape == (2 * SIZE, 2 * SIZE, 3)
  # The detectors' boxes mean the same.
  np.testing.assert_allclose(other.boxes, record.boxes, atol=15)
  assert np.abs(other.boxes - record.boxes).max() > 0.5
  # Padding shows in the first and the last columns only.
  np.testing.assert_array_equal(other.mel[3:-3], record.mel[3:-3])
  assert np.abs(other.mel - record.mel).max() > 0
  assert other.speaker == ""


# --- Clips that need care ----------------------------------------------------


@pytest.fixture(scope="module")
def two_tracks(tmp_path_factory):
  """A clip without a face from frame 30 to 59 of 100, and its records."""
  folder = tmp_path_factory.mktemp("two_tracks")
  frames = talking_frames(100, seed=5)
  frames[30:60] = [GREY] * 30
  write_video(folder / "gone.mp4", frames, babble(4.0, seed=5))
  return folder / "gone.mp4", make(folder, "gone.mp4")


def test_a_face_that_goes_away_gives_two_records(two_tracks):
  _, records = two_tracks
  assert [record.id for record in records] == ["gone", "gone_1"]
  first, second = records
  assert first.start == 0 and second.start == 60 / 25
  # Both cuts are seen, so that each face is there to its scene's last frame.
  assert len(first.frames) == 30 and len(second.frames) == 40
  for record in records:
    assert np.isfinite(record.boxes).all()


def test_both_records_crops_and_sound_belong_together(two_tracks):
  path, records = two_tracks
  source, sound = decode_video(path), decode_sound(path)
  written = babble(4.0, seed=5)
  for record in records:
    first = round(record.start * 25)
    count = len(record.frames)
    check_crops(record, source[first : first + count])
    begin, end = first * 640, (first + count) * 640
    np.testing.assert_array_equal(record.mel, audio.log_mel(sound[begin:end]))
    kept, _ = soundfile.read(io.BytesIO(record.audio), dtype="float32")
    np.testing.assert_allclose(
      kept, np.clip(sound[begin:end], -1, 1), atol=1.01 / 32768
    )
    assert lag(kept, written[begin:end]) == 0


def test_of_two_faces_the_larger_unless_all_are_wanted(tmp_path):
  small, large = talking_frames(20, 7, size=160), talking_frames(20, 8)
  frames = []
  for a, b in zip(small, large, strict=True):
    frame = np.full((256, 416, 3), 128, np.uint8)
    frame[96:, :160], frame[:, 160:] = a, b
    frames.append(frame)
  write_video(tmp_path / "two.mp4", frames, babble(0.8, 7))
  (record,) = make(tmp_path, "two.mp4")
  assert (record.boxes[:, 0] > 200).all() and len(record.frames) == 20
  everyone = dataclasses.replace(SETTINGS, keep_faces="all")
  records = clips.make_records(str(tmp_path), "two.mp4", "two", everyone)
  assert sorted(r.boxes[0, 0] > 200 for r in records) == [False, True]
  assert [r.id for r in records] == ["two", "two_1"]
  for record in records:
    assert 0.9 < record.confidence <= 1
    np.testing.assert_array_equal(record.mel, records[0].mel)


def test_a_margin_is_cut_out_and_not_in_the_boxes(good):
  path, _, whole = good
  settings = dataclasses.replace(SETTINGS, crop_rule="margin:0.2")
  (record,) = clips.make_records(str(path.parent), path.name, "a", settings)
  np.testing.assert_array_equal(record.boxes, whole.boxes)
  x1, y1, x2, y2 = record.boxes[0]
  width, height = 0.2 * (x2 - x1), 0.2 * (y2 - y1)
  box = np.array([x1 - width, y1 - height, x2 + width, y2 + height])
  expected = cut(decode_video(path)[0], box)
  error = np.abs(decode_jpeg(record.frames[0]).astype(int) - expected)
  assert error.mean() < 4
  assert np.abs(decode_jpeg(whole.frames[0]).astype(int) - expected).mean() > 8
  assert "margin:0.2" in record.settings


def test_long_tracks_become_records_of_equal_length(good):
  path, _, whole = good
  settings = dataclasses.replace(SETTINGS, max_frames=16)
  parts = clips.make_records(str(path.parent), path.name, "hello", settings)
  assert [len(p.frames) for p in parts] == [15, 15]
  assert [p.id for p in parts] == ["hello", "hello_1"]
  assert [p.start for p in parts] == [0, 15 / 25]
  assert [*parts[0].frames, *parts[1].frames] == whole.frames
  sound = decode_sound(path)
  np.testing.assert_array_equal(
    parts[1].mel, audio.log_mel(sound[15 * 640 : 30 * 640])
  )


def test_thirty_frames_a_second_become_twenty_five(tmp_path):
  write_video(
    tmp_path / "fast.mp4", talking_frames(45, 6), babble(1.5, 6), fps=30
  )
  (record,) = make(tmp_path, "fast.mp4")
  source = decode_video(tmp_path / "fast.mp4")
  assert len(source) == 45 and len(record.frames) in (37, 38)
  # Frame k is on at k / 25 s; the nearest source frame is 6 k / 5.
  nearest = [min(round(k * 6 / 5), 44) for k in range(len(record.frames))]
  check_crops(record, [source[i] for i in nearest])
  assert abs(len(record.mel) - 121) <= 1


# --- Records as files --------------------------------------------------------


def test_records_survive_a_file_bit_for_bit(two_tracks, good, tmp_path):
  _, _, single = good
  for records in (two_tracks[1], [single]):
    records_lib.save_records(str(tmp_path / "clip.npz"), records)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.npz"]
    again = records_lib.load_records(str(tmp_path / "clip.npz"))
    assert len(again) == len(records)
    for a, b in zip(records, again, strict=True):
      for field in dataclasses.fields(records_lib.Record):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert type(x) is type(y), field.name
        if isinstance(x, np.ndarray):
          assert x.dtype == y.dtype and x.shape == y.shape, field.name
          assert x.tobytes() == y.tobytes(), field.name
        else:
          assert x == y, field.name


def _npz(**arrays) -> bytes:
  out = io.BytesIO()
  np.savez(out, **arrays)
  return out.getvalue()


@pytest.mark.parametrize(
  "damage",
  [
    lambda data: b"",
    lambda data: data[:1000],
    lambda data: data[:-1],
    lambda data: bytes(len(data)),
    lambda data: b"not a clip\n" * 1000,
    lambda data: data[: len(data) // 2] + bytes(9) + data[len(data) // 2 + 9 :],
    lambda data: _npz(**{"0/id": np.array("a")}),
    lambda data: _npz(**{"0/id": np.array([None], object)}),
  ],
  ids=(
    "empty", "cut off", "a byte less", "zeros", "text", "bytes", "lacks",
    "pickle",
  ),
)  # fmt: skip
def test_a_damaged_file_is_named(good, tmp_path, damage):
  path = tmp_path / "damaged.npz"
  records_lib.save_records(str(path), [good[2]])
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match="damaged.npz.*run the same command"):
    records_lib.load_records(str(path))


def test_flipped_bits_are_named_or_harmless(good, tmp_path):
  path = tmp_path / "flipped.npz"
  record = dataclasses.replace(
    good[2], frames=good[2].frames[:2], audio=b"sound", mel=good[2].mel[:3]
  )
  records_lib.save_records(str(path), [record])
  data = path.read_bytes()
  # The zip's directory and the arrays' headers above all.
  rng = np.random.default_rng(0)
  directory = data.index(b"PK\x01\x02")
  places = [*range(200), *rng.integers(directory, len(data), 200)]
  noticed = 0
  for place in places:
    bit = 1 << int(rng.integers(8))
    path.write_bytes(
      data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
    )
    try:
      (loaded,) = records_lib.load_records(str(path))
    except ValueError as e:
      assert "flipped.npz" in str(e), place
      noticed += 1
    else:
      assert loaded.frames == record.frames, place
      assert loaded.mel.tobytes() == record.mel.tobytes(), place
      assert loaded.id == record.id, place
  assert noticed > 50


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_half_a_file_never_has_the_final_name(
  good, tmp_path, monkeypatch, error
):
  def stop_half_way(file, **arrays):
    del arrays
    file.write(b"PK half of it")
    raise error("no space left")

  path = tmp_path / "clip.npz"
  with monkeypatch.context() as patch:
    patch.setattr(np, "savez", stop_half_way)
    with pytest.raises(error):
      records_lib.save_records(str(path), [good[2]])
  assert not list(tmp_path.iterdir())
  # A complete one that was there stays.
  records_lib.save_records(str(path), [good[2]])
  before = path.read_bytes()
  with monkeypatch.context() as patch:
    patch.setattr(np, "savez", stop_half_way)
    with pytest.raises(error):
      records_lib.save_records(str(path), [good[2]])
  assert [p.name for p in tmp_path.iterdir()] == ["clip.npz"]
  assert path.read_bytes() == before


# --- Set aside ---------------------------------------------------------------


def _video(path, frames, waveform):
  write_video(path, frames, waveform)


def _text(path):
  path.write_text("This is not a video.\n" * 100)


def _empty(path):
  path.touch()


def _no_audio(path):
  _video(path, talking_frames(20), None)


def _no_face(path):
  _video(path, [GREY] * 20, babble(0.8))


def _face_too_short(path):
  """A face in frames 0 to 10 only."""
  _video(path, talking_frames(11) + [GREY] * 29, babble(1.6))


def _too_few_frames(path):
  _video(path, talking_frames(15), babble(0.6))


def _cut_off(path):
  """As a copy that stopped: the index, at the end, is missing."""
  _video(path, talking_frames(20), babble(0.8))
  data = path.read_bytes()
  path.write_bytes(data[: len(data) * 3 // 5])


def _cut_off_after_index(path):
  """The same of a file that has its index first."""
  frames = talking_frames(40)
  whole = path.with_name("whole.mp4")
  _video(whole, frames, babble(1.6))
  with (
    av.open(str(whole)) as source,
    av.open(
      str(path), "w", format="mp4", options={"movflags": "faststart"}
    ) as target,
  ):
    streams = {
      s.index: target.add_stream_from_template(s) for s in source.streams
    }
    for packet in source.demux():
      if packet.dts is not None:
        packet.stream = streams[packet.stream.index]
        target.mux(packet)
  whole.unlink()
  data = path.read_bytes()
  assert data.index(b"moov") < data.index(b"mdat")
  path.write_bytes(data[: len(data) // 2])


def _short_sound(path):
  _video(path, talking_frames(20), babble(0.1))


def _silence(path):
  _video(path, talking_frames(20), np.zeros(12_800, np.float32))


def _sound_only(path):
  soundfile.write(path, babble(1.0), SAMPLE_RATE, format="WAV")


def _picture(path):
  cv2.imwrite(f"{path}.png", face_picture())
  path.with_name(f"{path.name}.png").rename(path)


def _sound_not_finite(path):
  """Sound as raw floats, with a NaN among them."""
  waveform = babble(0.8)
  waveform[5000] = np.nan
  with av.open(str(path), "w", format="mov") as container:
    pictures = container.add_stream("libx264", rate=25)
    pictures.width = pictures.height = 256
    pictures.pix_fmt = "yuv420p"
    sound = container.add_stream("pcm_f32le", rate=SAMPLE_RATE, layout="mono")
    for image in talking_frames(20):
      container.mux(
        pictures.encode(av.VideoFrame.from_ndarray(image, format="bgr24"))
      )
    container.mux(pictures.encode(None))
    frame = av.AudioFrame.from_ndarray(
      waveform[None], format="flt", layout="mono"
    )
    frame.sample_rate = SAMPLE_RATE
    container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def _missing(path):
  """A link whose target is gone."""
  path.symlink_to(path.with_name("nowhere"))


SET_ASIDE = {
  _text: "not a video|no video stream",
  _empty: "is empty",
  _no_audio: "no audio stream",
  _no_face: r"no face .*\(0 of 20 frames have one\)",
  _face_too_short: r"no face in 16 frames on end \(11 of 40",
  _too_few_frames: "15 frames.*fewer than 16",
  _cut_off: "cut off",
  _cut_off_after_index: "cut off",
  _short_sound: r"0\.1\d s of sound.*less than the 0\.2 s",
  _silence: "digital silence",
  _sound_only: "no video stream",
  _picture: "no audio stream",
  _sound_not_finite: "sound.*not finite",
  _missing: "no such file",
}


@pytest.mark.parametrize(
  ("write", "why"), SET_ASIDE.items(), ids=lambda v: getattr(v, "__name__", "")
)
def test_set_aside_with_the_reason(tmp_path, write, why):
  write(tmp_path / "bad.mp4")
  with pytest.raises(clips.SetAside, match=why) as e:
    make(tmp_path, "bad.mp4")
  # The report names the file beside the reason.
  assert str(tmp_path) not in str(e.value)
  assert len(str(e.value).splitlines()) == 1
