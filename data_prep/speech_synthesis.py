"""Speech with phoneme timings, from the bundled espeak-ng (extra "demo").

The library keeps state from one utterance to the next, so that the same words
said twice differ by a sample or so.  All utterances of a list are therefore
made in one order by one fresh process: the same list, the same samples.
"""

import ctypes
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

# From espeak-ng's speak_lib.h.
_RETRIEVAL, _UTF8 = 1, 1
_PHONEME_EVENTS, _AS_IPA, _DONT_EXIT = 0x1, 0x2, 0x8000
_RATE, _PITCH = 1, 3
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7


class SynthesisError(RuntimeError):
  """Speech cannot be made; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Utterance:
  """What is to be said.

  Attributes:
    text: English.
    voice: espeak-ng's name, with a variant: "en-us+f3".
    rate: words a minute.
    pitch: 0 to 100; 50 is the voice's own.
  """

  text: str
  voice: str = "en-us"
  rate: int = 160
  pitch: int = 50


@dataclasses.dataclass(frozen=True)
class Speech:
  """What was said.

  Attributes:
    waveform: [samples] int16.
    sample_rate: Hz.
    phonemes: (IPA symbol, seconds at which it begins) in order; an empty
      symbol is silence.
  """

  waveform: np.ndarray
  sample_rate: int
  phonemes: tuple[tuple[str, float], ...]


def synthesize(utterances: list[Utterance]) -> list[Speech]:
  """Says a list of utterances, in a process of its own.

  Raises:
    SynthesisError: if the synthesiser is missing, or fails.
  """
  _loader()
  with tempfile.TemporaryDirectory() as folder:
    order = os.path.join(folder, "utterances.json")
    result = os.path.join(folder, "speech.npz")
    with open(order, "w", encoding="utf-8") as f:
      json.dump([dataclasses.asdict(u) for u in utterances], f)
    process = subprocess.run(
      [sys.executable, "-m", __name__, order, result],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
      cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    )
    if process.returncode:
      last = (process.stdout.strip() or "no output").splitlines()[-1]
      raise SynthesisError(
        f"espeak-ng ended with status {process.returncode}: {last}"
      )
    with np.load(result) as arrays:
      timings = json.loads(arrays["timings"].item())
      return [
        Speech(
          arrays[f"waveform_{i}"],
          int(arrays["sample_rate"]),
          tuple((symbol, start) for symbol, start in timings[i]),
        )
        for i in range(len(utterances))
      ]


def _loader():
  try:
    return importlib.import_module("espeakng_loader")
  except ImportError as e:
    raise SynthesisError(
      "the speech synthesiser is not installed; it comes with the package "
      "espeakng-loader (pip install '.[demo]'), which has wheels for Linux, "
      f"macOS and Windows on x86-64 and ARM64: {e}"
    ) from e


class _EventId(ctypes.Union):
  _fields_ = [
    ("number", ctypes.c_int),
    ("name", ctypes.c_char_p),
    ("string", ctypes.c_char * 8),
  ]


class _Event(ctypes.Structure):
  _fields_ = [
    ("type", ctypes.c_int),
    ("unique_identifier", ctypes.c_uint),
    ("text_position", ctypes.c_int),
    ("length", ctypes.c_int),
    ("audio_position", ctypes.c_int),
    ("sample", ctypes.c_int),
    ("user_data", ctypes.c_void_p),
    ("id", _EventId),
  ]


_CALLBACK = ctypes.CFUNCTYPE(
  ctypes.c_int,
  ctypes.POINTER(ctypes.c_short),
  ctypes.c_int,
  ctypes.POINTER(_Event),
)


def _say_all(utterances: list[Utterance]) -> dict[str, np.ndarray]:
  """Says them in this process; returns what `synthesize` reads back."""
  loader = _loader()
  library = ctypes.CDLL(loader.get_library_path())
  sample_rate = library.espeak_Initialize(
    _RETRIEVAL,
    0,
    loader.get_data_path().encode(),
    _PHONEME_EVENTS | _AS_IPA | _DONT_EXIT,
  )
  if sample_rate <= 0:
    raise SynthesisError(f"{loader.get_data_path()}: espeak-ng did not start")
  pieces, phonemes = [], []

  def receive(samples, count, events):
    if samples and count:
      pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
    i = 0
    while events[i].type != _EVENT_END_OF_LIST:
      if events[i].type == _EVENT_PHONEME:
        # The field holds eight bytes: a longer symbol may end inside a letter.
        symbol = events[i].id.string.decode("utf-8", errors="ignore")
        phonemes.append((symbol, events[i].sample / sample_rate))
      i += 1
    return 0

  callback = _CALLBACK(receive)
  library.espeak_SetSynthCallback(callback)
  arrays, timings = {"sample_rate": np.array(sample_rate)}, []
  library.espeak_ng_SetRandSeed(1)  # Breathy voices draw noise.
  for i, utterance in enumerate(utterances):
    if library.espeak_SetVoiceByName(utterance.voice.encode()):
      raise SynthesisError(f"espeak-ng has no voice {utterance.voice!r}")
    library.espeak_SetParameter(_RATE, utterance.rate, 0)
    library.espeak_SetParameter(_PITCH, utterance.pitch, 0)
    pieces.clear()
    phonemes.clear()
    text = utterance.text.encode()
    if library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None):
      raise SynthesisError(f"espeak-ng could not say {utterance.text!r}")
    library.espeak_Synchronize()
    if not pieces or not phonemes:
      raise SynthesisError(f"espeak-ng said nothing for {utterance.text!r}")
    arrays[f"waveform_{i}"] = np.concatenate(pieces)
    timings.append(list(phonemes))
  arrays["timings"] = np.array(json.dumps(timings))
  return arrays


if __name__ == "__main__":
  with open(sys.argv[1], encoding="utf-8") as order_file:
    to_say = [Utterance(**fields) for fields in json.load(order_file)]
  np.savez(sys.argv[2], **_say_all(to_say))
