"""Flash and click: after preparation, pictures and sound are where they were.

Each clip turns white at one of its frames, and clicks at the same instant.  The
frame is one that 25 frames a second have too, to 1.5 ms: what rounding to the
nearest frame does elsewhere is video_test's matter.
"""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from data_prep import clips
from w2l_jax import windows

RATES = {
  "23.976": Fraction(24_000, 1001),
  "25": Fraction(25),
  "29.97": Fraction(30_000, 1001),
  "30": Fraction(30),
  "50": Fraction(50),
  "vfr": None,
}
# Suffix, video codec, audio codec; AVI has no time stamps, so no late starts.
FORMATS = {
  "h264+aac": (".mp4", "libx264", "aac"),
  "hevc+aac": (".mp4", "libx265", "aac"),
  "h264+pcm": (".mov", "libx264", "pcm_s16le"),
  "h264+mp3": (".mkv", "libx264", "libmp3lame"),
  "vp9+opus": (".webm", "libvpx-vp9", "libopus"),
  "mpeg4+mp3": (".avi", "mpeg4", "libmp3lame"),
  "mpeg2+mp2": (".ts", "mpeg2video", "mp2"),
}
# Seconds at which pictures and sound start on the file's clock.
STARTS = {
  "together": (0.0, 0.0),
  "sound late": (0.0, 0.37),
  "pictures late": (0.42, 0.0),
}
SOUND_RATE = 48_000
SECONDS = 2.2


def frame_times(rate: str) -> tuple[np.ndarray, int]:
  """Times of frames from the first on, and which of them is the flash."""
  if RATES[rate] is None:
    gaps = np.random.default_rng(5).choice([0.02, 0.03, 0.05, 0.08], 60)
    before, after = np.cumsum(gaps), np.cumsum(gaps[::-1])
    before = before[before < 0.95]
    # A frame shortly before: else the flash is the nearest to 0.96 s, too.
    times = np.concatenate([[0.0], before, [0.97, 1.0], 1.0 + after])
    return times[times < SECONDS], len(before) + 2
  step = 1 / float(RATES[rate])
  return np.arange(0, SECONDS, step), round(1 / step)


def write(path, kind: str, rate: str, start: str) -> None:
  _, picture_codec, sound_codec = FORMATS[kind]
  times, flash = frame_times(rate)
  picture_start, sound_start = STARTS[start]
  # AVI and MPEG-2 count frames; the others take any time.
  counted = picture_codec in ("mpeg4", "mpeg2video")
  clock = 1 / RATES[rate] if counted else Fraction(1, 90_000)
  if counted:
    picture_start = float(round(picture_start / clock) * clock)
  samples = np.zeros(round(SECONDS * SOUND_RATE), np.float32)
  click = picture_start + times[flash] - sound_start
  samples[round(click * SOUND_RATE) :][: SOUND_RATE // 1000] = 0.9
  with av.open(str(path), "w") as container:
    pictures = container.add_stream(picture_codec, rate=RATES[rate] or 100)
    pictures.width = pictures.height = 64
    pictures.pix_fmt = "yuv420p"
    pictures.codec_context.time_base = clock
    sound = container.add_stream(sound_codec, rate=SOUND_RATE, layout="mono")
    for i, time in enumerate(times):
      image = np.full((64, 64, 3), 235 if i >= flash else 25, np.uint8)
      frame = av.VideoFrame.from_ndarray(image, format="bgr24")
      frame = frame.reformat(format="yuv420p")
      frame.pts = round((picture_start + time) / clock)
      frame.time_base = clock
      container.mux(pictures.encode(frame))
    container.mux(pictures.encode(None))
    resampler = av.AudioResampler(
      sound.format, "mono", SOUND_RATE, frame_size=sound.frame_size or 1024
    )
    block = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
    block.sample_rate = SOUND_RATE
    block.pts = round(sound_start * SOUND_RATE)
    block.time_base = Fraction(1, SOUND_RATE)
    for part in [*resampler.resample(block), *resampler.resample(None)]:
      container.mux(sound.encode(part))
    container.mux(sound.encode(None))


def disagreement(folder, kind: str, rate: str, start: str) -> float:
  """Prepares such a clip; how many frames later the click comes."""
  name = f"clip{FORMATS[kind][0]}"
  write(folder / name, kind, rate, start)
  (folder / "clip.csv").write_text(
    "seconds,x1,y1,x2,y2\n" + "".join(f"{t / 5},0,0,64,64\n" for t in range(20))
  )
  settings = clips.Settings(image_size=24, detector=f"boxes:{folder}")
  (record,) = clips.make_records(str(folder), name, "clip", settings)
  bright = [
    cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).mean()
    for jpeg in record.frames
  ]
  flash = int(np.argmax(np.array(bright) > 128))
  click = int(np.argmax(record.mel.mean(axis=1)))
  # Column c is centred at c / 80 s, where frame 25 c / 80 begins.
  return click * windows.FPS / windows.MEL_COLUMNS_PER_SECOND - flash


CASES = [
  (kind, rate, start)
  for kind in FORMATS
  for rate in RATES
  for start in STARTS
  # These count frames.
  if not (kind in ("mpeg4+mp3", "mpeg2+mp2") and rate == "vfr")
  # AVI has no time stamps; MPEG-TS's own start is not the first frame's.
  if not (kind == "mpeg4+mp3" and start != "together")
]
# Each rate, format and start at least once.
FEW = [
  ("h264+aac", "23.976", "sound late"),
  ("hevc+aac", "29.97", "together"),
  ("h264+pcm", "30", "pictures late"),
  ("h264+mp3", "vfr", "sound late"),
  ("vp9+opus", "50", "pictures late"),
  ("mpeg4+mp3", "25", "together"),
  ("mpeg2+mp2", "25", "sound late"),
  ("h264+aac", "vfr", "pictures late"),
]


@pytest.mark.parametrize(("kind", "rate", "start"), FEW)
def test_the_click_is_at_the_flash(tmp_path, kind, rate, start):
  assert abs(disagreement(tmp_path, kind, rate, start)) <= 0.5


@pytest.mark.slow
def test_the_click_is_at_the_flash_in_all_cases(tmp_path, capsys):
  found = {}
  for case in CASES:
    folder = tmp_path / "_".join(case).replace(" ", "_")
    folder.mkdir()
    found[case] = disagreement(folder, *case)
  with capsys.disabled():
    for kind in FORMATS:
      mine = {c: v for c, v in found.items() if c[0] == kind}
      print(
        f"\n{kind}: {len(mine)} cases, frames from flash to click "
        f"{min(mine.values()):+.3f} ... {max(mine.values()):+.3f}",
        end="",
      )
    print()
  late = {case: value for case, value in found.items() if abs(value) > 0.5}
  assert not late
