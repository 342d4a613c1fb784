"""Damaged files of many kinds: none stops the others, each is told of."""

import collections
import io
import json
import random
import zipfile
from fractions import Fraction

import av
import cv2
import numpy as np
import prepare_test
import pytest
import soundfile
from conftest import SAMPLE_RATE, SETTINGS, babble, face_picture, talking_frames

from data_prep import isolation, prepare

# Damage that FFmpeg may not notice, or that leaves all frames whole; of a file
# that lacks less than its last tenth, what is there is used.
MAY_BE_KEPT = {
  "truncated", "bits flipped", "zeros within", "parts swapped", "more behind",
}  # fmt: skip


def encode(
  path, frames, waveform, codec="libx264", rate=25, **options
) -> bytes:
  with av.open(str(path), "w", options=options) as container:
    pictures = container.add_stream(codec, rate=rate)
    pictures.height, pictures.width = frames[0].shape[:2]
    pictures.pix_fmt = "yuv420p"
    if codec == "libx264":
      pictures.options = {"preset": "ultrafast"}
    if waveform is not None:
      sound_codec = "libmp3lame" if path.suffix == ".avi" else "aac"
      sound = container.add_stream(sound_codec, rate=SAMPLE_RATE, layout="mono")
    for i, image in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(image, format="bgr24")
      frame.pts, frame.time_base = i, 1 / Fraction(rate)
      container.mux(pictures.encode(frame))
    container.mux(pictures.encode(None))
    if waveform is not None:
      resampler = av.AudioResampler(
        sound.format, "mono", SAMPLE_RATE, frame_size=sound.frame_size or 1024
      )
      block = av.AudioFrame.from_ndarray(waveform[None], "fltp", "mono")
      block.sample_rate = SAMPLE_RATE
      for part in [*resampler.resample(block), *resampler.resample(None)]:
        container.mux(sound.encode(part))
      container.mux(sound.encode(None))
  return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
  """{name: bytes} of undamaged clips in several containers."""
  folder = tmp_path_factory.mktemp("whole")
  frames, sound = talking_frames(24, seed=2, size=128), babble(0.96, seed=2)
  return {
    "late.mp4": encode(folder / "late.mp4", frames, sound),
    "early.mp4": encode(
      folder / "early.mp4", frames, sound, movflags="faststart"
    ),
    "a.mkv": encode(folder / "a.mkv", frames, sound),
    "a.avi": encode(folder / "a.avi", frames, sound, "mpeg4"),
  }


def damaged(kind, name, data, rng, folder):
  """Returns (name, bytes) of a file of that kind."""
  if kind == "truncated":
    return name, data[: rng.randrange(1, len(data) * 95 // 100)]
  if kind == "bits flipped":
    data = bytearray(data)
    for _ in range(rng.choice([1, 8, 64, 512])):
      data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return name, bytes(data)
  if kind == "zeros within":
    start, size = rng.randrange(len(data)), rng.randrange(1, 4000)
    return name, data[:start] + bytes(size) + data[start + size :]
  if kind == "parts swapped":
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return name, data[:a] + data[b:] + data[a:b]
  if kind == "more behind":
    return name, data + rng.randbytes(2000)
  if kind == "empty":
    return name, b""
  if kind == "noise":
    return name, data[:16] + rng.randbytes(5000)
  if kind == "wrong suffix":
    what = rng.choice(["text", "zip", "jpeg", "json"])
    if what == "text":
      return name, b"This is not a video.\n" * rng.randrange(1, 200)
    if what == "zip":
      out = io.BytesIO()
      with zipfile.ZipFile(out, "w") as f:
        f.writestr("a.txt", "a" * 1000)
      return name, out.getvalue()
    if what == "jpeg":
      return name, cv2.imencode(".jpg", face_picture(64))[1].tobytes()
    return name, json.dumps({"a": [1, 2, 3]}).encode()
  suffix = f".{name.rsplit('.', 1)[1]}"
  path = folder / f"made{suffix}"
  codec = "mpeg4" if suffix == ".avi" else "libx264"
  frames, sound = talking_frames(20, size=96), babble(0.8)
  if kind == "sound only":
    out = io.BytesIO()
    soundfile.write(out, sound, SAMPLE_RATE, format="WAV")
    return name, out.getvalue()
  if kind == "pictures only":
    return name, encode(path, frames, None, codec)
  if kind == "one frame":
    return name, encode(path, frames[:1], sound, codec)
  if kind == "10 000 frames a second":
    path = path.with_suffix(".mkv")  # AVI wants whole ticks of its own.
    return f"{name}.mkv", encode(path, frames, sound, rate=10_000)
  if kind == "huge":
    # H.264 of 8704 x 8704 pixels, all black, two frames.
    black = [np.zeros((8704, 8704, 3), np.uint8)] * 2
    return "huge.mp4", encode(folder / "huge.mp4", black, sound)
  raise ValueError(kind)


KINDS = (
  "truncated", "bits flipped", "zeros within", "parts swapped", "more behind",
  "empty", "noise", "wrong suffix", "sound only", "pictures only", "one frame",
  "10 000 frames a second",
)  # fmt: skip


def make_damaged(whole, count, seed, videos, scratch) -> dict[str, str]:
  """Writes `count` damaged files; returns {file: kind}."""
  rng, kinds = random.Random(seed), {}
  # Half of all are of the two commonest kinds.
  for i in range(count):
    kind = KINDS[i % len(KINDS)] if i % 2 else rng.choice(KINDS[:2])
    kind = KINDS[i] if i < len(KINDS) else kind
    name, data = rng.choice(sorted(whole.items()))
    name, data = damaged(kind, name, data, rng, scratch)
    file = f"{i:03d}.{name}"
    (videos / file).write_bytes(data)
    kinds[file] = kind
  return kinds


def check(report, kinds, whole, capsys):
  kept = set(kinds) - set(report.set_aside)
  assert set(report.set_aside) <= set(kinds)
  assert report.made == len(kept) + len(whole)
  assert {kinds[file] for file in kept} <= MAY_BE_KEPT
  assert all(reason.strip() for reason in report.set_aside.values())
  # A bug of ours, or a kind of damage that should have a message of its own.
  assert not [r for r in report.set_aside.values() if "unexpected" in r]
  counts = collections.Counter(kinds.values())
  with capsys.disabled():
    print()
    for kind, count in counts.items():
      kept_here = sum(kinds[file] == kind for file in kept)
      print(f"{kind}: {count}, set aside {count - kept_here}, kept {kept_here}")
    for reason, count in collections.Counter(
      report.set_aside.values()
    ).most_common(40):
      print(f"  {count} x {reason}")


def test_a_dozen_damaged_files(whole, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(isolation, "run", prepare_test.one_after_the_other)
  videos = tmp_path / "videos"
  videos.mkdir()
  kinds = make_damaged(whole, len(KINDS), 0, videos, tmp_path)
  for name, data in whole.items():
    (videos / name).write_bytes(data)
  report = prepare_test.run(videos, tmp_path / "data")
  check(report, kinds, whole, capsys)


@pytest.mark.slow
def test_two_hundred_damaged_files(whole, tmp_path, capsys):
  """Seed 7; in processes of their own, with a limit on their time."""
  videos = tmp_path / "videos"
  videos.mkdir()
  kinds = make_damaged(whole, 199, 7, videos, tmp_path)
  name, data = damaged("huge", "huge.mp4", b"", random.Random(), tmp_path)
  (videos / f"199.{name}").write_bytes(data)
  kinds[f"199.{name}"] = "huge"
  for name, data in whole.items():
    (videos / name).write_bytes(data)
  report = prepare.prepare(
    str(videos), str(tmp_path / "data"), SETTINGS, workers=2, clip_timeout=60
  )
  check(report, kinds, whole, capsys)
