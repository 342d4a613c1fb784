"""Waveform to normalised log-mel spectrogram, exactly as Wav2Lip has it.

Original: audio.py and hparams.py; the resampler and the spectrogram are
libraries'.  Reading sound from files is in video.py.
"""

import functools
from collections.abc import Iterable, Iterator

import librosa
import numpy as np
import soxr

SAMPLE_RATE = 16_000
N_FFT = 800
HOP_LENGTH = 200
NUM_MELS = 80
FMIN = 55.0
FMAX = 7600.0
PREEMPHASIS = 0.97
MIN_LEVEL_DB = -100.0
REF_LEVEL_DB = 20.0
MAX_ABS_VALUE = 4.0

# The value of digital silence, everywhere.
SILENCE = -MAX_ABS_VALUE

# Columns of the spectrogram that are computed at a time: a minute's.
_COLUMNS = 4800

# "reflect" is what librosa 0.7 did, which Wav2Lip pins and its released
# weights heard; "constant" (zeros) is what librosa does since 0.9.  They differ
# in the first and the last two columns only.
PADDINGS = ("reflect", "constant")


def as_floats(waveform: np.ndarray) -> np.ndarray:
  """Integers scaled to [-1, 1]; floats as they are, in float32."""
  waveform = np.asarray(waveform)
  if np.issubdtype(waveform.dtype, np.integer):
    limits = np.iinfo(waveform.dtype)
    half = (float(limits.max) - float(limits.min) + 1) / 2
    # Unsigned ones (8-bit WAV) are silent in the middle of their range.
    waveform = (waveform - (limits.min + half)) / half
  return waveform.astype(np.float32)


def resample(
  waveform: np.ndarray, sample_rate: int, target_rate: int = SAMPLE_RATE
) -> np.ndarray:
  """Mixes to mono and resamples.

  Args:
    waveform: [samples] or [samples, channels]; floats in [-1, 1], or integers,
      which are scaled to that range.
    sample_rate: of `waveform`, Hz.
    target_rate: Hz.

  Returns:
    [samples'] float32.
  """
  waveform = as_floats(waveform)
  if waveform.ndim == 2:
    waveform = waveform.mean(axis=1)
  if waveform.ndim != 1:
    raise ValueError(
      f"waveform has shape {waveform.shape}, expected [samples] or "
      "[samples, channels]"
    )
  if sample_rate == target_rate or not waveform.size:
    return waveform
  return soxr.resample(waveform, sample_rate, target_rate, quality="HQ")


@functools.cache
def mel_basis() -> np.ndarray:
  """The [80, 401] mel filters: Slaney's scale and area normalisation."""
  return librosa.filters.mel(
    sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=NUM_MELS, fmin=FMIN, fmax=FMAX
  )


def log_mel(
  waveform: np.ndarray,
  sample_rate: int = SAMPLE_RATE,
  padding: str = "reflect",
) -> np.ndarray:
  """Computes the spectrogram that the networks hear.

  Pre-emphasis, magnitude STFT (800-sample periodic Hann, hop 200, centred),
  mel filters, 20 log10 with a floor of -100 dB, minus 20 dB, then mapped from
  [-100, 0] dB to [-4, 4] and clipped.  There is no peak normalisation.

  Args:
    waveform: [samples] or [samples, channels], any sample rate.
    sample_rate: of `waveform`, Hz.
    padding: how the ends are extended by 400 samples: one of PADDINGS.

  Returns:
    [1 + len // 200, 80] float32 in [-4, 4], where len counts samples at 16 kHz.

  Raises:
    ValueError: if `waveform` is empty or not finite, `padding` is unknown, or
      the sound is too short (at most 400 samples at 16 kHz) to be reflected.
  """
  return np.concatenate(
    list(log_mel_blocks([resample(waveform, sample_rate)], padding))
  )


def resampled(
  blocks: Iterable[np.ndarray], sample_rate: int, target_rate: int = SAMPLE_RATE
) -> Iterator[np.ndarray]:
  """As `resample`, of sound that comes in blocks, for any length of it.

  Args:
    blocks: [samples, channels] floats, one after the other.
    sample_rate, target_rate: Hz.

  Yields:
    [samples'] float32.
  """
  stream = soxr.ResampleStream(
    sample_rate, target_rate, 1, dtype="float32", quality="HQ"
  )
  for block in blocks:
    mono = block.mean(axis=1, dtype=np.float32)
    if sample_rate != target_rate:
      mono = stream.resample_chunk(mono)
    yield mono
  if sample_rate != target_rate:
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def log_mel_blocks(
  blocks: Iterable[np.ndarray], padding: str = "reflect"
) -> Iterator[np.ndarray]:
  """As `log_mel`, of 16 kHz sound that comes in blocks, for any length of it.

  Args:
    blocks: [samples] float32, one after the other.
    padding: one of PADDINGS.

  Yields:
    [columns, 80] float32, one after the other.

  Raises:
    ValueError: as `log_mel`.
  """
  if padding not in PADDINGS:
    raise ValueError(f"padding is {padding!r}, expected one of {PADDINGS}")
  import scipy.signal  # Slow to import, and training has its mel stored.

  half = N_FFT // 2
  # Emphasised samples from the next column's first on; before there are enough
  # to be reflected, all.
  held, state, started, total = np.zeros(0), np.zeros(1), False, 0

  def columns(samples):
    count = (len(samples) - N_FFT) // HOP_LENGTH + 1
    for start in range(0, count, _COLUMNS):
      stop = min(count, start + _COLUMNS)
      part = samples[start * HOP_LENGTH : (stop - 1) * HOP_LENGTH + N_FFT]
      yield _columns(part)

  for block in blocks:
    if not np.all(np.isfinite(block)):
      raise ValueError("the waveform has values that are not finite")
    if not len(block):
      continue
    total += len(block)
    emphasised, state = scipy.signal.lfilter(
      [1.0, -PREEMPHASIS], [1.0], block, zi=state
    )
    held = np.concatenate([held, emphasised])
    if not started:
      if len(held) <= half:
        continue
      held, started = np.pad(held, (half, 0), padding), True
    yield from columns(held)
    done = max(0, (len(held) - N_FFT) // HOP_LENGTH + 1)
    held = held[done * HOP_LENGTH :]
  shortest = half + 1 if padding == "reflect" else 1
  if total < shortest:
    raise ValueError(
      f"the waveform has {total} samples at 16 kHz, expected at least "
      f"{shortest}"
    )
  if not started:
    held = np.pad(held, (half, 0), padding)
  # What is held reaches 600 samples back at least: enough to be reflected.
  yield from columns(np.pad(held, (0, half), padding))


def _columns(emphasised: np.ndarray) -> np.ndarray:
  """Columns of whole windows: [n] float64 to [1 + (n - 800) // 200, 80]."""
  magnitude = np.abs(
    librosa.stft(emphasised, n_fft=N_FFT, hop_length=HOP_LENGTH, center=False)
  )
  floor = 10.0 ** (MIN_LEVEL_DB / 20.0)
  decibels = (
    20.0 * np.log10(np.maximum(floor, mel_basis() @ magnitude)) - REF_LEVEL_DB
  )
  scaled = 2.0 * MAX_ABS_VALUE * (decibels - MIN_LEVEL_DB) / -MIN_LEVEL_DB
  return np.clip(
    scaled - MAX_ABS_VALUE, -MAX_ABS_VALUE, MAX_ABS_VALUE
  ).T.astype(np.float32)
