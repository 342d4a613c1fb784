"""From timed phonemes to mouth tracks, with coarticulation.

Each phoneme pulls the mouth towards a shape of its own, strongest at its middle
and less the farther away: the mouth is the weighted mean of all pulls (Cohen
and Massaro, "Modeling Coarticulation in Synthetic Visual Speech", 1993).
"""

import dataclasses
import unicodedata

import numpy as np

# Letters of the International Phonetic Alphabet to (opening, width), each in
# [0, 1]: closed to wide open, rounded to spread; 0.5 is the width at rest.
_SHAPES = {
  "ɑaæɐʌ": (0.95, 0.60),
  "ɛe": (0.65, 0.80),
  "iɪᵻy": (0.35, 0.95),
  "ɔɒ": (0.80, 0.25),
  "o": (0.60, 0.15),
  "uʊ": (0.30, 0.05),
  "əɚɜ": (0.45, 0.50),
  "w": (0.12, 0.00),
  "ɹrɾ": (0.25, 0.30),
  "pbm": (0.00, 0.45),
  "fv": (0.06, 0.60),
  "θð": (0.20, 0.60),
  "tdnlsz": (0.20, 0.65),
  "ʃʒ": (0.22, 0.15),
  "kɡgŋhxʔ": (0.40, 0.50),
  "j": (0.28, 0.85),
}
_BY_LETTER = {c: shape for letters, shape in _SHAPES.items() for c in letters}
_REST = (0.0, 0.5)
# Lips that must touch do so whatever stands beside them.
_CLOSING = "pbmfvw"
# How strongly a phoneme pulls, and how fast its pull fades with distance.
_STRENGTH, _CLOSING_STRENGTH = 1.0, 6.0
_FADE_PER_SECOND, _CLOSING_FADE = 22.0, 34.0


@dataclasses.dataclass(frozen=True)
class MouthTrack:
  """The mouth's shape at each video frame.

  Attributes:
    opening: [frames] float32 in [0, 1]: the gap between the lips.
    width: [frames] float32 in [0, 1]: rounded to spread.
  """

  opening: np.ndarray
  width: np.ndarray


def mouth_track(
  phonemes: tuple[tuple[str, float], ...],
  seconds: float,
  num_frames: int,
  fps: float,
) -> MouthTrack:
  """Computes the mouth's shape at the frame times 0, 1/fps, ...

  Args:
    phonemes: (IPA symbol, beginning in seconds), as in `Speech.phonemes`.
    seconds: where the last one ends.
    num_frames: how many frames to return; past the end the mouth is at rest.
    fps: frames a second.
  """
  times = np.arange(num_frames) / fps
  weights, openings, widths = [], [], []
  # Silence before the first phoneme pulls too.
  timed = [("", min(0.0, phonemes[0][1] - 0.1)), *phonemes]
  ends = [start for _, start in timed[1:]] + [max(seconds, timed[-1][1])]
  for (symbol, start), end in zip(timed, ends, strict=True):
    letters = [c for c in _letters(symbol) if c in _BY_LETTER]
    # A diphthong or an affricate takes its parts one after the other.
    for i, letter in enumerate(letters or [""]):
      share = (end - start) / max(1, len(letters))
      middle = start + (i + 0.5) * share
      opening, width = _BY_LETTER.get(letter, _REST)
      closing = letter != "" and letter in _CLOSING
      strength = _CLOSING_STRENGTH if closing else _STRENGTH
      fade = _CLOSING_FADE if closing else _FADE_PER_SECOND
      # The pull is flat within the middle half of the phoneme.
      distance = np.maximum(np.abs(times - middle) - share / 4, 0)
      weights.append(strength * np.exp(-fade * distance))
      openings.append(opening)
      widths.append(width)
  # Far from all phonemes rest wins.
  weights.append(np.full(num_frames, 0.02))
  openings.append(_REST[0])
  widths.append(_REST[1])
  weights = np.stack(weights)
  total = weights.sum(axis=0)
  return MouthTrack(
    (np.array(openings) @ weights / total).astype(np.float32),
    (np.array(widths) @ weights / total).astype(np.float32),
  )


def _letters(symbol: str) -> str:
  """Drops stress, length and other marks from an IPA symbol."""
  plain = unicodedata.normalize("NFD", symbol)
  return "".join(c for c in plain if unicodedata.category(c) in ("Ll", "Lo"))
