"""Offset, LSE-D and LSE-C against loops that follow the definition."""

import math

import numpy as np
import pytest

from w2l_jax.evaluation import lse


def features(n: int, size: int = 6, seed: int = 0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, size)), rng.normal(size=(n, size))


def distance(a, b) -> float:
  return math.sqrt(sum((x - y + 1e-6) ** 2 for x, y in zip(a, b, strict=True)))


def brute_force(lips, speech, max_shift, faithful):
  """One shift, window and number after the other."""
  zeros = [0.0] * lips.shape[1]
  found = []
  for shift in range(-max_shift, max_shift + 1):
    distances = []
    for v in range(len(lips)):
      partner = v + shift
      if 0 <= partner < len(speech):
        distances.append(distance(lips[v], speech[partner]))
      elif faithful:
        distances.append(distance(lips[v], zeros))
    if faithful or len(distances) >= len(lips) / 2:
      found.append(sum(distances) / len(distances))
    else:
      found.append(math.nan)
  return found


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("n", [1, 2, 7, 15, 16, 31, 40])
@pytest.mark.parametrize("max_shift", [0, 3, 15])
def test_against_brute_force(n, max_shift, faithful):
  lips, speech = features(n, seed=n)
  expected = brute_force(lips, speech, max_shift, faithful)
  got = lse.score(lips, speech, max_shift, faithful)
  np.testing.assert_allclose(got.distances, expected, rtol=1e-12)
  valid = sorted(x for x in expected if not math.isnan(x))
  middle = len(valid) // 2
  median = (
    valid[middle] if len(valid) % 2 else (valid[middle - 1] + valid[middle]) / 2
  )
  lse_d = valid[0] if faithful else expected[max_shift]
  assert got.lse_d == pytest.approx(lse_d, rel=1e-12)
  assert got.lse_c == pytest.approx(median - lse_d, abs=1e-12)
  assert got.offset == max_shift - expected.index(valid[0])
  assert got.windows == n


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("lag", [-15, -4, 0, 1, 9, 15])
def test_a_lag_is_found(lag, faithful):
  """Speech that comes `lag` frames after its lips has the offset -lag."""
  rng = np.random.default_rng(0)
  common = rng.normal(size=(140, 8))
  lips = common[20:120]
  speech = common[20 - lag : 120 - lag]
  got = lse.score(lips, speech, faithful=faithful)
  assert got.offset == -lag
  if faithful:
    # A lag costs nothing but what the padding of the ends does.
    assert got.lse_d < 0.7 and got.lse_c > 2
  else:
    # Without a shift it costs what any wrong pair does.
    assert (got.lse_d > 1) == (lag != 0)
    # Nothing but a shift's own pairs count: they are the same features.
    assert min(got.distances[np.isfinite(got.distances)]) == pytest.approx(
      8**0.5 * 1e-6
    )


def test_the_ends_bias_the_faithful_score():
  """Why there is a corrected one: equal features at every shift.

  Every shift has the same distance, and so no confidence; counted from zeros
  at the ends, far shifts of a short clip look better or worse by themselves.
  """
  lips = np.tile([3.0, 0.0], (20, 1))
  speech = np.tile([0.0, 3.0], (20, 1))
  corrected = lse.score(lips, speech)
  assert corrected.lse_c == pytest.approx(0, abs=1e-9)
  assert corrected.lse_d == pytest.approx(3 * 2**0.5)
  faithful = lse.score(lips, speech, faithful=True)
  assert abs(faithful.offset) == 15
  assert faithful.lse_c > 0.4


def test_shifts_with_few_pairs_are_left_out():
  lips, speech = features(20)
  got = lse.score(lips, speech).distances
  assert np.isnan(got[:5]).all() and np.isnan(got[-5:]).all()
  assert np.isfinite(got[5:-5]).all()


@pytest.mark.parametrize(
  ("a", "b"), [((0, 4), (0, 4)), ((3, 4), (4, 4)), ((3,), (3,))]
)
def test_what_cannot_be_scored(a, b):
  with pytest.raises(ValueError, match="at least one window"):
    lse.score(np.zeros(a), np.zeros(b))
