"""What is asked of features, on features whose answers are known."""

import dataclasses

import numpy as np
import pytest

from w2l_jax import evaluate_sync
from w2l_jax.evaluation import lse
from w2l_jax.evaluation.results import Results
from w2l_jax.judges import Features

PROTOCOL = evaluate_sync.Protocol()


class Judge:
  """Has but a name."""

  name = "expert"


def walk(n: int, seed: int, noise: float = 0.3) -> Features:
  """Lips and speech that change slowly and go together, with some noise."""
  rng = np.random.default_rng(seed)
  common = np.cumsum(rng.normal(size=(n + 8, 16)), axis=0)
  common = common[8:] - common[:-8]
  lips, speech = (common + noise * rng.normal(size=(n, 16)) for _ in range(2))
  has_speech = np.arange(n) > 5
  return Features(lips, speech, has_speech)


def test_scores():
  features = walk(60, 0)
  found, distances = evaluate_sync.scores(
    features.lips, features.speech, features.has_speech, PROTOCOL
  )
  expected = lse.score(features.lips, features.speech)
  assert found["lse_d"] == expected.lse_d
  assert found["lse_c"] == expected.lse_c
  assert found["offset"] == expected.offset == 0
  np.testing.assert_array_equal(distances, expected.distances)
  cosines = [
    x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    for x, y, s in zip(
      features.lips, features.speech, features.has_speech, strict=True
    )
    if s
  ]
  assert found["similarity"] == pytest.approx(np.mean(cosines))


def test_silence_has_no_similarity_but_distances():
  features = walk(30, 0)
  found, _ = evaluate_sync.scores(
    features.lips, features.speech, np.zeros(30, bool), PROTOCOL
  )
  assert np.isnan(found["similarity"])
  assert all(np.isfinite(v) for k, v in found.items() if k != "similarity")


def test_measure_adds_to_the_curves():
  results = Results()
  for seed in range(3):
    figures = evaluate_sync.measure(
      results, "syncnet", "real", walk(50, seed), PROTOCOL
    )
  assert set(figures) == {
    (f"syncnet_{s}", "real") for s in (*evaluate_sync.SCORES, "offset")
  }
  curves = results.curves()
  assert np.nanargmin(curves["syncnet_distance"]["real"]) == 15
  assert np.nanargmax(curves["syncnet_similarity"]["real"]) == 15
  assert curves["syncnet_accuracy"]["real"][15] == 0.5
  assert curves["syncnet_accuracy"]["real"][5] > 0.9
  assert len(curves["syncnet_similarity_all"]["real"]) == 31


def test_silent_windows_count_in_all_alone():
  """Where silence is matched badly, speech's figures do not suffer."""
  features = walk(60, 0)
  silent = ~features.has_speech
  features.lips[silent] = -features.speech[silent]
  results, pairs = Results(), evaluate_sync.Pairs(PROTOCOL)
  evaluate_sync.measure(results, "expert", "real", features, PROTOCOL)
  pairs.add(features)
  curves = {k: v["real"][15] for k, v in results.curves().items()}
  assert curves["expert_similarity"] > curves["expert_similarity_all"] + 0.1
  assert curves["expert_similarity"] == pytest.approx(
    evaluate_sync.scores(
      features.lips, features.speech, features.has_speech, PROTOCOL
    )[0]["similarity"]
  )
  roc = pairs.roc()
  assert roc["area"] > roc["area_all"]


def shift_tested(protocol) -> Results:
  """What six clips' walks find of a judge."""
  results = Results()
  tests = evaluate_sync.JudgeTests([Judge], protocol)
  for seed in range(6):
    tests.add("expert", walk(70, seed))
  tests.finish(results)
  return results


def test_shift_test_and_roc():
  results = shift_tested(PROTOCOL)
  found = results.shift_tests["expert"]
  assert set(found) == set(evaluate_sync.SCORES)
  for score in evaluate_sync.SCORES:
    assert list(found[score]) == [
      "0", "1", "2", "3", "5", "10", "shuffled", "exchanged",
    ]  # fmt: skip
    better = evaluate_sync.HIGHER_IS_BETTER[score]
    assert evaluate_sync.falls_until(found[score], better) in (
      "5",
      "10",
      "shuffled",
    )
  roc = results.rocs["expert"]
  assert roc["area"] > 0.95 and roc["area_all"] > 0.95
  assert roc["false"][0] == 0 and roc["true"][-1] == 1
  assert len(roc["true"]) <= 200


def test_the_faithful_score_forgives_a_lag():
  """The best of all shifts sees other speech; of a lag, the padding alone."""
  faithful = dataclasses.replace(PROTOCOL, faithful=True)
  lse_d = shift_tested(faithful).shift_tests["expert"]["lse_d"]
  for other in ("shuffled", "exchanged"):
    assert lse_d[other] > 8 * lse_d["0"] and lse_d[other] > 4 * lse_d["10"]


def test_moved_speech_is_scored_as_moved():
  """A shift by k scores what lips and speech k frames apart do."""
  features = walk(40, 0)
  test = evaluate_sync.ShiftTest(PROTOCOL)
  test.add(features)
  sides = [
    lse.score(features.lips[:-3], features.speech[3:]),
    lse.score(features.lips[3:], features.speech[:-3]),
  ]
  found = test.means()
  for score in ("lse_d", "lse_c"):
    expected = np.mean([getattr(s, score) for s in sides])
    assert found[score]["3"] == pytest.approx(expected)
  # There is no other clip.
  assert not {"shuffled", "exchanged"} & set(found["lse_d"])


def test_shuffled_is_unrelated_where_exchanged_is_not():
  """Clips of one rhythm, each with something of its own."""
  rng = np.random.default_rng(0)
  n = 60
  rhythm = 3 * np.sin(np.arange(n) / 3)[:, None] * np.ones(8)
  test = evaluate_sync.ShiftTest(PROTOCOL)
  for _ in range(12):
    own = rng.normal(size=(n, 8))
    lips, speech = (rhythm + own + rng.normal(size=(n, 8)) for _ in range(2))
    test.add(Features(lips, speech, np.ones(n, bool)))
  for score in ("similarity", "lse_d"):
    found = test.means()[score]
    sign = 1 if evaluate_sync.HIGHER_IS_BETTER[score] else -1
    assert sign * found["0"] > sign * found["exchanged"]
    assert sign * found["exchanged"] > sign * found["shuffled"]
  assert test.means()["similarity"]["shuffled"] == pytest.approx(0, abs=0.1)


def test_what_clips_are_shuffled_with():
  """Those before it, not itself: a clip alone has no such score."""
  a, b = (
    Features(np.eye(9)[[i] * 20], np.eye(9)[[i] * 20], np.ones(20, bool))
    for i in (0, 1)
  )
  test = evaluate_sync.ShiftTest(PROTOCOL)
  test.add(a)
  assert "shuffled" not in test.means()["similarity"]
  test.add(b)
  assert test.means()["similarity"]["shuffled"] == 0
  test.add(a)  # Half of what is drawn is a's.
  assert 0.1 < test.means()["similarity"]["shuffled"] < 0.4


def test_clips_shorter_than_a_shift():
  test = evaluate_sync.ShiftTest(PROTOCOL)
  test.add(walk(4, 0))
  assert list(test.means()["lse_d"]) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
  ("values", "higher", "expected"),
  [
    ((5, 4, 3, 2, 1, 0.5, 0), True, "shuffled"),
    ((5, 4, 3, 4, 1, 0.5, 0), True, "2"),
    ((0, 1, 2, 3, 4, 5, 5), False, "10"),
    ((0, 0, 2, 3, 4, 5, 6), False, "0"),
  ],
)
def test_falls_until(values, higher, expected):
  names = [*map(str, evaluate_sync.SHIFTS), evaluate_sync.SHUFFLED]
  by_shift = dict(zip(names, values, strict=True))
  assert evaluate_sync.falls_until(by_shift, higher) == expected
