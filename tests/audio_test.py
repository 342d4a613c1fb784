"""The spectrogram, against one written from the recipe in float64 NumPy."""

import librosa
import numpy as np
import pytest

from w2l_jax import audio

RATE = 16_000
# In a range of [-4, 4].  The filters and the result are float32, the rest is
# float64; 2e-7 was found.
TOLERANCE = 2e-6


def speechlike(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
  """Twelve tones of 100 to 3400 Hz that swell, the same at every rate."""
  t = np.arange(round(seconds * rate)) / rate
  rng = np.random.default_rng(5)
  x = np.zeros_like(t)
  for f in np.linspace(100, 3400, 12):
    swell = 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(1, 5) * t)
    x += 0.05 * swell * np.sin(2 * np.pi * f * t + rng.uniform(0, 6))
  return x


def slaney_filters() -> np.ndarray:
  """Triangles of unit area: linear in Hz up to 1 kHz, logarithmic above."""

  def to_mel(f):
    return 3 * f / 200 if f < 1000 else 15 + 27 * np.log(f / 1000) / np.log(6.4)

  def to_hz(m):
    return 200 * m / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

  low, high = to_mel(55.0), to_mel(7600.0)
  corners = [to_hz(low + (high - low) * i / 81) for i in range(82)]
  filters = np.zeros((80, 401))
  for band in range(80):
    left, centre, right = corners[band : band + 3]
    for k in range(401):
      f = k * 16_000 / 800
      if left < f <= centre:
        filters[band, k] = (f - left) / (centre - left)
      elif centre < f < right:
        filters[band, k] = (right - f) / (right - centre)
    filters[band] *= 2 / (right - left)
  return filters


def reference_log_mel(x: np.ndarray, padding: str) -> np.ndarray:
  """[columns, 80] in float64, one column at a time."""
  x = np.asarray(x, np.float64)
  y = x.copy()
  y[1:] -= 0.97 * x[:-1]
  if padding == "reflect":
    padded = np.concatenate([y[400:0:-1], y, y[-2:-402:-1]])
  else:
    padded = np.concatenate([np.zeros(400), y, np.zeros(400)])
  window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 800)
  filters = slaney_filters()
  columns = []
  for k in range(1 + len(x) // 200):
    spectrum = np.abs(np.fft.rfft(window * padded[200 * k : 200 * k + 800]))
    decibels = 20 * np.log10(np.maximum(1e-5, filters @ spectrum)) - 20
    columns.append(np.clip(8 * (decibels + 100) / 100 - 4, -4, 4))
  return np.array(columns)


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.parametrize("kind", ["noise", "tones", "quiet", "loud", "click"])
def test_log_mel_follows_the_recipe(padding, kind):
  rng = np.random.default_rng(0)
  if kind == "tones":
    x = speechlike(0.7)
  elif kind == "click":
    x = np.zeros(9_137)
    x[4_000] = 1.0
  else:
    scale = {"noise": 0.2, "quiet": 1e-3, "loud": 1.0}[kind]
    x = np.clip(scale * rng.standard_normal(9_137), -1, 1)
  x = x.astype(np.float32)
  mel = audio.log_mel(x, RATE, padding)
  expected = reference_log_mel(x, padding)
  assert mel.dtype == np.float32
  assert mel.shape == expected.shape
  # The picture is not all floor or all ceiling.
  assert np.ptp(expected) > 1
  assert np.abs(mel - expected).max() < TOLERANCE


def test_reflection_is_the_default():
  x = np.random.default_rng(1).standard_normal(4000).astype(np.float32) / 5
  np.testing.assert_array_equal(
    audio.log_mel(x), audio.log_mel(x, RATE, "reflect")
  )


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.parametrize(
  "samples", [401, 599, 600, 601, 799, 800, 801, 1599, 16_000, 16_199]
)
# librosa's, for sounds shorter than one spectrum.
@pytest.mark.filterwarnings("ignore:n_fft=800 is too large")
def test_number_of_columns(samples, padding):
  x = np.random.default_rng(2).standard_normal(samples).astype(np.float32) / 9
  mel = audio.log_mel(x, RATE, padding)
  assert mel.shape == (1 + samples // 200, 80)
  assert np.abs(mel - reference_log_mel(x, padding)).max() < TOLERANCE


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_digital_silence_is_minus_four(padding, dtype):
  mel = audio.log_mel(np.zeros(8000, dtype), RATE, padding)
  assert mel.shape == (41, 80)
  assert (mel == -4.0).all()
  assert audio.SILENCE == -4.0


def test_values_stay_in_range():
  rng = np.random.default_rng(3)
  mel = audio.log_mel((100 * rng.standard_normal(4000)).astype(np.float32))
  assert mel.max() == 4.0
  assert mel.min() >= -4.0


@pytest.mark.parametrize("samples", [16_000, 16_100])
def test_paddings_differ_in_two_columns_at_each_end(samples):
  x = np.random.default_rng(4).standard_normal(samples).astype(np.float32) / 5
  a = audio.log_mel(x, RATE, "reflect")
  b = audio.log_mel(x, RATE, "constant")
  differ = np.flatnonzero((a != b).any(axis=1))
  n = len(a)
  assert differ.tolist() == [0, 1, n - 2, n - 1]


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_log_mel_is_librosas(rate, padding):
  """By librosa's functions in the order of the original's audio.py."""
  x = speechlike(1.0, rate).astype(np.float32)
  y = librosa.resample(x, orig_sr=rate, target_sr=RATE)
  y = librosa.effects.preemphasis(y, coef=0.97, zi=[0.0])
  spectrum = librosa.stft(
    y, n_fft=800, hop_length=200, win_length=800, pad_mode=padding
  )
  filters = librosa.filters.mel(
    sr=RATE, n_fft=800, n_mels=80, fmin=55, fmax=7600
  )
  decibels = librosa.amplitude_to_db(
    filters @ np.abs(spectrum), ref=10.0, amin=1e-5, top_db=None
  )
  expected = np.clip(8 * (decibels + 100) / 100 - 4, -4, 4).T
  mel = audio.log_mel(x, rate, padding)
  assert mel.shape == expected.shape == (81, 80)
  # librosa's transform is in float32; 7e-6 was found.
  assert np.abs(mel - expected).max() < 3e-5


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_sample_rates_agree(rate, padding):
  expected = reference_log_mel(speechlike(1.0), padding)
  mel = audio.log_mel(speechlike(1.0, rate), rate, padding)
  assert mel.shape == expected.shape == (81, 80)
  # The resampler rings where the sound is cut off.
  mel, expected = mel[4:-4], expected[4:-4]
  loud = expected > -2
  assert loud.mean() > 0.3
  assert np.abs(mel - expected)[loud].max() < 1e-4
  # 8 kHz sound has nothing from 4 kHz on; nor has this at any other rate.
  assert mel[:, 70:].max() < -3.9


def test_resample_keeps_length_and_pitch():
  t = np.arange(44_100) / 44_100
  y = audio.resample(0.5 * np.sin(2 * np.pi * 440 * t), 44_100)
  assert y.dtype == np.float32
  assert len(y) == 16_000
  expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
  assert np.abs(y - expected)[500:-500].max() < 1e-3


def test_integers_equal_floats():
  k = np.random.default_rng(6).integers(-32768, 32768, 4000)
  floats = (k / 32768).astype(np.float32)
  expected = audio.log_mel(floats)
  np.testing.assert_array_equal(audio.log_mel(k.astype(np.int16)), expected)
  np.testing.assert_array_equal(
    audio.log_mel((k * 65536).astype(np.int32)), expected
  )


def test_eight_bit_sound_is_silent_at_128():
  k = np.random.default_rng(6).integers(0, 256, 4000)
  floats = ((k - 128) / 128).astype(np.float32)
  np.testing.assert_array_equal(
    audio.resample(k.astype(np.uint8), RATE), floats
  )
  assert (audio.log_mel(np.full(4000, 128, np.uint8)) == -4.0).all()


@pytest.mark.parametrize("rate", [RATE, 22_050])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(rate, channels):
  x = np.random.default_rng(7).uniform(-1, 1, (8000, channels))
  x = x.astype(np.float32)
  mean = sum(x[:, i].astype(np.float64) for i in range(channels)) / channels
  got = audio.log_mel(x, rate)
  expected = audio.log_mel(mean.astype(np.float32), rate)
  # A float32 mean may be rounded otherwise.
  assert np.abs(got - expected).max() < 1e-4


def test_integer_stereo():
  k = np.random.default_rng(8).integers(-32768, 32768, (4000, 2))
  expected = audio.log_mel((k.sum(axis=1) / 65536).astype(np.float32))
  np.testing.assert_array_equal(audio.log_mel(k.astype(np.int16)), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_values_that_are_not_finite(bad, rate):
  x = np.zeros(8000, np.float32)
  x[4000] = bad
  with pytest.raises(ValueError, match="not finite"):
    audio.log_mel(x, rate)


@pytest.mark.parametrize("padding", ["reflect", "constant"])
@pytest.mark.parametrize("shape", [(0,), (0, 2)])
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_empty_sound(padding, shape, rate):
  with pytest.raises(ValueError, match="0 samples"):
    audio.log_mel(np.zeros(shape, np.float32), rate, padding)


def test_too_short_to_reflect():
  with pytest.raises(ValueError, match="400 samples.* at least 401"):
    audio.log_mel(np.zeros(400, np.float32))
  with pytest.raises(ValueError, match="400 samples"):
    audio.log_mel(np.zeros(1200, np.float32), 48_000)


@pytest.mark.filterwarnings("ignore:n_fft=800 is too large")
@pytest.mark.parametrize("samples", [1, 400])
def test_zeros_need_one_sample_only(samples):
  x = np.full(samples, 0.5, np.float32)
  mel = audio.log_mel(x, RATE, "constant")
  expected = reference_log_mel(x, "constant")
  assert mel.shape == expected.shape == (1 + samples // 200, 80)
  assert np.abs(mel - expected).max() < TOLERANCE


def test_unknown_padding():
  with pytest.raises(ValueError, match="'edge'.*reflect.*constant"):
    audio.log_mel(np.zeros(8000, np.float32), RATE, "edge")


@pytest.mark.parametrize("shape", [(), (4000, 2, 1)])
def test_wrong_number_of_dimensions(shape):
  with pytest.raises(ValueError, match="shape"):
    audio.log_mel(np.zeros(shape, np.float32))


@pytest.mark.parametrize("padding", audio.PADDINGS)
@pytest.mark.parametrize("samples", [401, 599, 600, 601, 1000, 16_123])
def test_mel_of_blocks_is_that_of_the_whole(padding, samples):
  """However the sound is cut, also where nothing is left of a block."""
  rng = np.random.default_rng(samples)
  waveform = rng.normal(0, 0.1, samples).astype(np.float32)
  expected = audio.log_mel(waveform, padding=padding)
  for cuts in ([], [1], [400], [500, 500, 599], list(range(7, samples, 97))):
    blocks = audio.log_mel_blocks(np.split(waveform, cuts), padding)
    np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)


def test_more_than_a_minute(monkeypatch):
  """Columns are computed some at a time: the same columns."""
  waveform = np.random.default_rng(0).normal(0, 0.1, 16_000)
  expected = audio.log_mel(waveform)
  monkeypatch.setattr(audio, "_COLUMNS", 7)
  np.testing.assert_array_equal(audio.log_mel(waveform), expected)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_resampled_blocks_are_the_whole(rate):
  waveform = np.random.default_rng(0).normal(0, 0.1, (2 * rate, 2))
  waveform = waveform.astype(np.float32)
  found = np.concatenate(
    list(audio.resampled(np.array_split(waveform, 41), rate))
  )
  np.testing.assert_allclose(found, audio.resample(waveform, rate), atol=1e-6)
