"""MFCCs as SyncNet hears them: python_speech_features' defaults, in NumPy.

That library has had no release since 2017, and its recipe (filters that begin
at whole bins of the spectrum, an unpadded start, energy in place of c0) is not
any other library's; tests hold this against it.
"""

import functools

import numpy as np
import scipy.fft

SAMPLE_RATE = 16_000
STEP = 160  # 10 ms
_WINDOW = 400  # 25 ms
_N_FFT = 512
_FILTERS = 26
COEFFICIENTS = 13
_LIFTER = 22
_PREEMPHASIS = 0.97


@functools.cache
def _filters() -> np.ndarray:
  """Triangles on the mel scale, corners at whole bins: [26, 257]."""

  def mel(hertz):
    return 2595 * np.log10(1 + hertz / 700)

  corners = np.linspace(mel(0.0), mel(SAMPLE_RATE / 2), _FILTERS + 2)
  hertz = 700 * (10 ** (corners / 2595) - 1)
  bins = np.floor((_N_FFT + 1) * hertz / SAMPLE_RATE)
  left, middle, right = (b[:, None] for b in (bins[:-2], bins[1:-1], bins[2:]))
  i = np.arange(_N_FFT // 2 + 1)
  rise = (i - left) / np.maximum(middle - left, 1)
  fall = (right - i) / np.maximum(right - middle, 1)
  return np.where(
    (i >= left) & (i < middle),
    rise,
    np.where((i >= middle) & (i < right), fall, 0.0),
  )


def num_columns(samples: int) -> int:
  """How many columns `mfcc` gives for so many samples."""
  return 1 + max(0, -(-(samples - _WINDOW) // STEP))


def mfcc(waveform: np.ndarray) -> np.ndarray:
  """Computes 13 coefficients 100 times a second.

  Args:
    waveform: [samples] at 16 kHz, floats in [-1, 1]; they are rounded to 16
      bits first, as the WAV file that SyncNet reads has it.

  Returns:
    [num_columns, 13] float32; the last column's window is filled with zeros.
  """
  signal = np.clip(np.rint(np.asarray(waveform) * 32768.0), -32768, 32767)
  signal = signal.astype(np.float64)
  emphasised = np.concatenate(
    [signal[:1], signal[1:] - _PREEMPHASIS * signal[:-1]]
  )
  columns = num_columns(len(signal))
  padded = np.zeros((columns - 1) * STEP + _WINDOW)
  padded[: len(emphasised)] = emphasised
  frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::STEP]
  power = np.abs(np.fft.rfft(frames, _N_FFT)) ** 2 / _N_FFT
  tiny = np.finfo(np.float64).eps
  energy = power.sum(axis=1)
  bands = power @ _filters().T
  bands, energy = (np.where(x == 0, tiny, x) for x in (bands, energy))
  cepstrum = scipy.fft.dct(np.log(bands), type=2, axis=1, norm="ortho")
  n = np.arange(COEFFICIENTS)
  lifter = 1 + _LIFTER / 2 * np.sin(np.pi * n / _LIFTER)
  cepstrum = cepstrum[:, :COEFFICIENTS] * lifter
  cepstrum[:, 0] = np.log(energy)
  return cepstrum.astype(np.float32)
