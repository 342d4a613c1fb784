"""What is asked of a judge's features: scores, curves, and a test of the judge.

Features come from judges.py; which clips are judged is evaluate_split.py's and
evaluate_videos.py's matter.
"""

import collections
import dataclasses

import numpy as np

from w2l_jax.evaluation import lse, sync_metrics
from w2l_jax.evaluation.results import Results
from w2l_jax.judges import Features

# Frames by which the speech of real clips is moved to see whether a judge's
# scores fall with it.  "shuffled": every window of speech is a random one of
# other clips.  "exchanged": another clip's speech as it is, which is no step
# further than "shuffled" where clips speak and pause at the same times.
SHIFTS = (0, 1, 2, 3, 5, 10)
SHUFFLED, EXCHANGED = "shuffled", "exchanged"
# Windows are shuffled among those of so many clips, so that memory is flat, and
# so often, so that chance counts for less.
_SHUFFLED_CLIPS = 20
_SHUFFLES = 4
SCORES = ("similarity", "lse_d", "lse_c")
HIGHER_IS_BETTER = {"similarity": True, "lse_d": False, "lse_c": True}


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How clips are scored; configs/evaluation.py says why so.

  Attributes:
    min_frames: clips and face tracks of fewer are not scored.
    max_shift: of lse, in frames.
    faithful: of lse.
    roc_distance: least distance in frames of the ROC's wrong pairs.
    shown: how many clips are drawn.
  """

  min_frames: int = 20
  max_shift: int = lse.MAX_SHIFT
  faithful: bool = False
  roc_distance: int = 5
  shown: int = 3


def scores(
  lips: np.ndarray,
  speech: np.ndarray,
  has_speech: np.ndarray,
  protocol: Protocol,
) -> tuple[dict[str, float], np.ndarray]:
  """All scores of one clip's features.

  Args:
    lips, speech: [n, D].
    has_speech: [n] bool; the similarity is over these windows, the distances
      over all, as SyncNet's are.
    protocol: how.

  Returns:
    ({score: figure}, the distances by shift); the similarity is NaN where no
    window has speech.
  """
  found = lse.score(lips, speech, protocol.max_shift, protocol.faithful)
  similarity = np.nan
  if has_speech.any():
    similarity = float(
      sync_metrics.cosines(lips[has_speech], speech[has_speech]).mean()
    )
  return {
    "similarity": similarity,
    "lse_d": found.lse_d,
    "lse_c": found.lse_c,
    "offset": float(found.offset),
  }, found.distances


def measure(
  results: Results,
  judge: str,
  variant: str,
  features: Features,
  protocol: Protocol,
) -> dict[tuple[str, str], float]:
  """Scores one clip, adds to the curves, and returns the row's figures.

  Curves by shift: JUDGE_distance, the mean distance; JUDGE_similarity,
  and JUDGE_accuracy, how often speech is nearer to its own lips than to those
  of that shift, of windows with speech, and with _all of all windows.
  """
  found, distances = scores(
    features.lips, features.speech, features.has_speech, protocol
  )
  results.add_to_curve(f"{judge}_distance", variant, distances)
  everywhere = _similarities(features, protocol.max_shift)
  spoken = _with_speech(everywhere, features)
  for suffix, by_shift in (("", spoken), ("_all", everywhere)):
    means = [
      np.nanmean(s) if np.isfinite(s).any() else np.nan for s in by_shift
    ]
    accuracy = sync_metrics.accuracy_over_shifts(by_shift)
    results.add_to_curve(f"{judge}_similarity{suffix}", variant, means)
    results.add_to_curve(f"{judge}_accuracy{suffix}", variant, accuracy)
  return {(f"{judge}_{name}", variant): v for name, v in found.items()}


def _similarities(features: Features, max_shift: int) -> list[np.ndarray]:
  """Cosines by shift, of all windows."""
  return sync_metrics.shift_similarities(
    features.lips, features.speech, max_shift, np.ones(len(features), bool)
  )


def _with_speech(by_shift: list[np.ndarray], features: Features) -> list:
  """The same where the window has speech, NaN elsewhere."""
  return [np.where(features.has_speech, s, np.nan) for s in by_shift]


class ShiftTest:
  """Whether a judge's scores of real clips fall as speech is moved away."""

  def __init__(self, protocol: Protocol):
    self._protocol = protocol
    self._found: dict = {}
    self._earlier: collections.deque[Features] = collections.deque(
      maxlen=_SHUFFLED_CLIPS
    )
    self._rng = np.random.default_rng(0)

  def add(self, features: Features) -> None:
    """Scores one clip with its speech moved, and with that of earlier clips."""
    n = len(features)
    for shift in SHIFTS:
      if n - shift < 1:
        continue
      sides = [
        # Speech later than the lips, and earlier: the mean of both.
        (features.lips[: n - shift], slice(shift, n)),
        (features.lips[shift:], slice(0, n - shift)),
      ]
      self._score(
        shift,
        [
          (lips, features.speech[s], features.has_speech[s])
          for lips, s in sides
        ],
      )
    if self._earlier:
      speech, has_speech = (
        np.concatenate([getattr(f, name) for f in self._earlier])
        for name in ("speech", "has_speech")
      )
      drawn = self._rng.integers(len(speech), size=(_SHUFFLES, n))
      self._score(
        SHUFFLED, [(features.lips, speech[i], has_speech[i]) for i in drawn]
      )
      other = self._earlier[-1]
      m = min(n, len(other))
      self._score(
        EXCHANGED,
        [(features.lips[:m], other.speech[:m], other.has_speech[:m])],
      )
    self._earlier.append(features)

  def _score(self, name, sides) -> None:
    each = [scores(*side, self._protocol)[0] for side in sides]
    for score in SCORES:
      value = np.mean([e[score] for e in each])
      self._found.setdefault(score, {}).setdefault(name, []).append(value)

  def means(self) -> dict[str, dict[str, float]]:
    """Returns {score: {shift: mean over clips}}."""
    return {
      score: {
        str(shift): float(np.nanmean(values))
        if np.isfinite(values).any()
        else float("nan")
        for shift, values in by_shift.items()
      }
      for score, by_shift in self._found.items()
    }


def falls_until(by_shift: dict[str, float], higher_is_better: bool) -> str:
  """Up to which of SHIFTS and SHUFFLED a score gets worse with every step.

  Args:
    by_shift: of one score of `ShiftTest.means`.
    higher_is_better: of that score.

  Returns:
    The last shift's name; "shuffled" where it falls from end to end.
  """
  names = [str(s) for s in (*SHIFTS, SHUFFLED) if str(s) in by_shift]
  for last, name in zip(names, names[1:], strict=False):
    step = by_shift[name] - by_shift[last]
    if not (step < 0 if higher_is_better else step > 0):
      return last
  return names[-1]


class Pairs:
  """True and wrong pairs of all clips, for the ROC of a judge.

  A wrong pair is speech with lips of the same clip some frames away; each
  window of speech brings one true pair and all wrong ones that there are.
  """

  def __init__(self, protocol: Protocol):
    self._min_distance = protocol.roc_distance
    self._max_shift = protocol.max_shift
    self._true: dict = {"": [], "_all": []}
    self._wrong: dict = {"": [], "_all": []}

  def add(self, features: Features) -> None:
    """Adds one clip's pairs."""
    everywhere = _similarities(features, self._max_shift)
    middle = self._max_shift
    for suffix, by_shift in (
      ("", _with_speech(everywhere, features)),
      ("_all", everywhere),
    ):
      wrong = [
        values
        for k, values in enumerate(by_shift)
        if abs(k - middle) >= self._min_distance
      ]
      for found, values in (
        (self._true, by_shift[middle]),
        (self._wrong, np.concatenate(wrong) if wrong else np.zeros(0)),
      ):
        found[suffix].append(values[np.isfinite(values)].astype(np.float32))

  def roc(self, points: int = 200) -> dict | None:
    """Returns the curve over windows with speech, thinned, and areas under it.

    Args:
      points: of the curve, at most.

    Returns:
      {"false", "true", "area", "area_all", "min_distance"}; area_all is of all
      windows.  None where there is no pair.
    """
    curves = {}
    for suffix in ("", "_all"):
      true, wrong = (
        np.concatenate(found[suffix]) if found[suffix] else np.zeros(0)
        for found in (self._true, self._wrong)
      )
      if not len(true) or not len(wrong):
        return None
      curves[suffix] = sync_metrics.roc(true, wrong)
    false_rates, true_rates = curves[""]
    kept = np.unique(
      np.linspace(0, len(false_rates) - 1, points).round().astype(int)
    )
    return {
      "false": false_rates[kept],
      "true": true_rates[kept],
      "area": sync_metrics.area_under_roc(false_rates, true_rates),
      "area_all": sync_metrics.area_under_roc(*curves["_all"]),
      "min_distance": self._min_distance,
    }


class JudgeTests:
  """The two tests of every judge, on real clips."""

  def __init__(self, judges: list, protocol: Protocol):
    """Begins without a clip; `judges` are of judges.py."""
    self._tests = {
      judge.name: (ShiftTest(protocol), Pairs(protocol)) for judge in judges
    }

  def add(self, judge: str, features: Features) -> None:
    """Adds one real clip."""
    for test in self._tests[judge]:
      test.add(features)

  def finish(self, results: Results) -> None:
    """Puts what was found into the results."""
    for judge, (shifts, pairs) in self._tests.items():
      means, roc = shifts.means(), pairs.roc()
      if means:
        results.shift_tests[judge] = means
      if roc:
        results.rocs[judge] = roc
