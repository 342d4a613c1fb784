"""Figures of merit, against scikit-image and against trying everything."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import skimage.data
import skimage.metrics
import skimage.transform

from w2l_jax.evaluation import (
  frechet,
  image_metrics,
  intervals,
  sync_metrics,
)
from w2l_jax.evaluation.results import Results, without_nan

# Pictures.


def pictures() -> tuple[np.ndarray, np.ndarray]:
  """Photos and what was done to them, float32 [6, 40, 56, 3]."""
  rng = np.random.default_rng(0)
  photo = skimage.transform.resize(
    skimage.data.astronaut(), (40, 56), anti_aliasing=True
  )
  noise = rng.uniform(0, 1, photo.shape)
  real = np.stack([photo, photo, photo, photo[::-1], noise, photo])
  fake = np.stack(
    [
      photo + 0.1 * rng.standard_normal(photo.shape),
      0.7 * photo + 0.1,
      np.roll(photo, 2, axis=1),
      photo,
      photo,
      photo + 1 / 255,
    ]
  ).clip(0, 1)
  return fake.astype(np.float32), real.astype(np.float32)


def test_l1():
  fake, real = pictures()
  expected = [
    np.abs(a.astype(np.float64) - b).mean()
    for a, b in zip(fake, real, strict=True)
  ]
  got = image_metrics.l1(fake, real)
  assert got.shape == (6,)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_psnr():
  fake, real = pictures()
  expected = [
    skimage.metrics.peak_signal_noise_ratio(
      b.astype(np.float64), a.astype(np.float64), data_range=1
    )
    for a, b in zip(fake, real, strict=True)
  ]
  got = image_metrics.psnr(fake, real)
  assert got.shape == (6,)
  np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_psnr_of_equal_pictures_is_100():
  _, real = pictures()
  np.testing.assert_allclose(image_metrics.psnr(real, real), 100, rtol=1e-6)


def test_ssim():
  fake, real = pictures()
  expected = [
    skimage.metrics.structural_similarity(
      a.astype(np.float64),
      b.astype(np.float64),
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      data_range=1,
      channel_axis=-1,
    )
    for a, b in zip(fake, real, strict=True)
  ]
  # They are not all alike.
  assert np.ptp(expected) > 0.5
  got = image_metrics.ssim(fake, real)
  assert got.shape == (6,)
  np.testing.assert_allclose(got, expected, atol=1e-4)


def test_ssim_of_equal_pictures_is_1():
  _, real = pictures()
  np.testing.assert_allclose(image_metrics.ssim(real, real), 1, atol=1e-5)
  flat = np.full((1, 20, 20, 3), 0.5, np.float32)
  np.testing.assert_allclose(image_metrics.ssim(flat, flat), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["l1", "psnr", "ssim"])
def test_jitted_and_alone_they_are_the_same(name):
  function = getattr(image_metrics, name)
  fake, real = map(jnp.asarray, pictures())
  together = np.asarray(jax.jit(function)(fake, real))
  for i in range(len(fake)):
    alone = function(fake[i : i + 1], real[i : i + 1])
    np.testing.assert_allclose(alone[0], together[i], rtol=1e-4, atol=1e-5)


# Similarities.


def similarities(seed, n=60, levels=None, shift=0.2):
  """True and wrong pairs' [n], in [0, 1]; with ties if `levels` is small."""
  rng = np.random.default_rng(seed)
  true = np.clip(rng.normal(0.5 + shift, 0.2, n), 0, 1)
  wrong = np.clip(rng.normal(0.5, 0.2, n), 0, 1)
  if levels:
    true, wrong = (np.round(x * levels) / levels for x in (true, wrong))
  return true.astype(np.float32), wrong.astype(np.float32)


def test_mean_bce():
  rng = np.random.default_rng(0)
  p = rng.uniform(0.01, 0.99, 50).astype(np.float32)
  y = rng.integers(0, 2, 50)
  total = sum(
    -math.log(float(a)) if b else -math.log(1 - float(a))
    for a, b in zip(p, y, strict=True)
  )
  got = sync_metrics.mean_bce(p, y)
  assert isinstance(got, float)
  assert got == pytest.approx(total / 50, rel=1e-6)


@pytest.mark.parametrize(
  ("p", "y", "expected"),
  [
    (0.0, 1, 100),
    (1.0, 0, 100),
    (0.0, 0, 0),
    (1.0, 1, 0),
    (0.5, 1, math.log(2)),
    # Not clamped before the logarithm.
    (1e-30, 1, 30 * math.log(10)),
  ],
)
def test_mean_bce_at_its_ends(p, y, expected):
  got = sync_metrics.mean_bce(np.array([p]), np.array([y]))
  assert got == pytest.approx(expected)


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("seed", range(3))
def test_two_way_accuracy(seed, levels):
  true, wrong = similarities(seed, levels=levels)
  won = sum(
    1.0 if t > w else 0.5 if t == w else 0.0
    for t, w in zip(true, wrong, strict=True)
  )
  got = sync_metrics.two_way_accuracy(true, wrong)
  assert got == pytest.approx(won / len(true))


def test_a_constant_answer_is_chance():
  same = np.full(7, 0.3, np.float32)
  assert sync_metrics.two_way_accuracy(same, same) == 0.5
  threshold = sync_metrics.best_threshold(same, same)
  assert sync_metrics.balanced_accuracy(same, same, threshold) == 0.5


def accuracy_at(true, wrong, threshold) -> float:
  right = sum(t > threshold for t in true) / len(true)
  left = sum(w <= threshold for w in wrong) / len(wrong)
  return (right + left) / 2


@pytest.mark.parametrize("threshold", [-1.0, 0.2, 0.4, 0.55, 2.0])
@pytest.mark.parametrize("levels", [None, 5])
def test_balanced_accuracy(threshold, levels):
  true, wrong = similarities(0, levels=levels)
  # Unequal numbers must not matter.
  wrong = wrong[:21]
  got = sync_metrics.balanced_accuracy(true, wrong, threshold)
  assert got == pytest.approx(accuracy_at(true, wrong, threshold))


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("shift", [0.5, 0.2, 0.0, -0.2, -0.9])
@pytest.mark.parametrize("seed", range(4))
def test_no_threshold_is_better_than_the_best(seed, shift, levels):
  true, wrong = similarities(seed, levels=levels, shift=shift)
  wrong = wrong[:37]
  best = sync_metrics.best_threshold(true, wrong)
  everything = np.unique(np.concatenate([true, wrong])).astype(np.float64)
  tried = [-1.0, *everything, *(everything[1:] + everything[:-1]) / 2, 2.0]
  assert accuracy_at(true, wrong, best) == pytest.approx(
    max(accuracy_at(true, wrong, t) for t in tried)
  )


def test_the_threshold_lies_halfway():
  true = np.array([0.8, 0.9], np.float32)
  wrong = np.array([0.1, 0.4], np.float32)
  assert sync_metrics.best_threshold(true, wrong) == pytest.approx(0.6)


# Similarities by shift, and the ROC.


def test_cosines():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 9, 5))
  a[3] = 0
  expected = [
    sum(x * y) / (math.hypot(*x) * math.hypot(*y)) if any(x) else 0
    for x, y in zip(a, b, strict=True)
  ]
  np.testing.assert_allclose(sync_metrics.cosines(a, b), expected, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 20])
def test_shift_similarities(n):
  rng = np.random.default_rng(n)
  lips, speech = rng.normal(size=(2, n, 4))
  counted = rng.random(n) < 0.7
  found = sync_metrics.shift_similarities(lips, speech, 5, counted)
  assert len(found) == 11
  for shift in range(-5, 6):
    for v in range(n):
      value = found[5 + shift][v]
      # Speech v lies beside the lips that it is `shift` frames later than.
      if counted[v] and 0 <= v - shift < n:
        x, y = lips[v - shift], speech[v]
        expected = (x @ y) / math.hypot(*x) / math.hypot(*y)
        assert value == pytest.approx(expected)
      else:
        assert math.isnan(value)


def test_accuracy_over_shifts():
  rng = np.random.default_rng(0)
  by_shift = list(rng.random((5, 30)))
  by_shift[2][:4] = np.nan
  by_shift[0][:] = np.nan
  found = sync_metrics.accuracy_over_shifts(by_shift)
  assert math.isnan(found[0])
  assert found[2] == 0.5
  for k in (1, 3, 4):
    wins = [
      t > w for t, w in zip(by_shift[2][4:], by_shift[k][4:], strict=True)
    ]
    assert found[k] == pytest.approx(sum(wins) / 26)


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.3, 2.0])
def test_roc(shift, levels):
  true, wrong = similarities(0, levels=levels, shift=shift)
  wrong = wrong[:23]
  false_rates, true_rates = sync_metrics.roc(true, wrong)
  assert false_rates[0] == true_rates[0] == 0
  assert false_rates[-1] == true_rates[-1] == 1
  thresholds = [math.inf, *sorted({*true, *wrong}, reverse=True)]
  for t, f, r in zip(thresholds, false_rates, true_rates, strict=True):
    assert f == pytest.approx(sum(w >= t for w in wrong) / len(wrong))
    assert r == pytest.approx(sum(x >= t for x in true) / len(true))
  # The area is how often a true pair beats a wrong one, ties one half.
  area = sum((x > w) + 0.5 * (x == w) for x in true for w in wrong)
  got = sync_metrics.area_under_roc(false_rates, true_rates)
  assert got == pytest.approx(area / len(true) / len(wrong))


# Fréchet distance.


def gaussian_features(n, size, seed):
  rng = np.random.default_rng(seed)
  mix = rng.normal(size=(size, size))
  return rng.normal(size=(n, size)) @ mix + rng.normal(0, 3, size=size)


def test_statistics_come_in_parts():
  features = gaussian_features(200, 6, 0) + 1e4  # A mean far from 0.
  statistics = frechet.FeatureStatistics()
  for part in np.split(features, [1, 30, 31, 150]):
    statistics.add(part)
  assert statistics.count == 200
  np.testing.assert_allclose(statistics.mean, features.mean(0), rtol=1e-12)
  np.testing.assert_allclose(
    statistics.covariance, np.cov(features, rowvar=False), rtol=1e-8
  )


@pytest.mark.parametrize("count", [4, 200])  # Fewer pictures than features.
def test_frechet_distance_against_scipy(count):
  a, b = (gaussian_features(count, 12, seed) for seed in (0, 1))
  means = a.mean(0), b.mean(0)
  covariances = [np.cov(x, rowvar=False) for x in (a, b)]
  root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
  expected = (
    np.sum((means[0] - means[1]) ** 2)
    + np.trace(covariances[0] + covariances[1])
    - 2 * np.trace(np.real(root))
  )
  got = frechet.distance(means[0], covariances[0], means[1], covariances[1])
  assert got == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_known_gaussians():
  """Diagonal covariances: a sum of (m1 - m2)^2 + (s1 - s2)^2."""
  got = frechet.distance(
    np.array([1.0, 2.0]),
    np.diag([4.0, 9.0]),
    np.array([0.0, 0.0]),
    np.diag([1.0, 25.0]),
  )
  assert got == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 5) ** 2)
  same = np.diag([2.0, 3.0])
  assert frechet.distance(np.ones(2), same, np.ones(2), same) == pytest.approx(
    0, abs=1e-12
  )


def test_frechet_distance_of_too_few():
  one = frechet.FeatureStatistics()
  one.add(np.ones((1, 3)))
  assert math.isnan(frechet.between(one, one))


# Intervals.


def test_interval_against_scipy():
  values = np.random.default_rng(0).gamma(2, size=60)
  got = intervals.mean_interval(values)
  expected = scipy.stats.bootstrap(
    (values,), np.mean, method="percentile", n_resamples=9999
  ).confidence_interval
  assert got["mean"] == pytest.approx(values.mean())
  width = expected.high - expected.low
  assert got["low"] == pytest.approx(expected.low, abs=0.05 * width)
  assert got["high"] == pytest.approx(expected.high, abs=0.05 * width)
  assert got == intervals.mean_interval(values)


def test_interval_of_few():
  one = intervals.mean_interval(np.array([2.0, np.nan, np.inf]))
  assert one["mean"] == 2 and one["clips"] == 1 and math.isnan(one["low"])
  none = intervals.mean_interval(np.array([np.nan]))
  assert none["clips"] == 0 and math.isnan(none["mean"])


def test_jitter():
  frames = np.random.default_rng(0).random((5, 4, 6, 3))
  total = [
    abs(frames[t - 1, i] - 2 * frames[t, i] + frames[t + 1, i]).mean()
    for t in range(1, 4)
    for i in range(4)
  ]
  assert image_metrics.jitter(frames) == pytest.approx(np.mean(total))
  # Even motion has none.
  moving = np.arange(6.0)[:, None, None, None] * np.ones((1, 2, 2, 3)) / 10
  assert image_metrics.jitter(moving) == pytest.approx(0)


# Results.


def test_results(tmp_path):
  results = Results()
  results.add({"clip": "a"}, {("psnr", "real"): 1.0, ("x", "copied"): 2.0})
  results.add({"clip": "b", "track": "1"}, {("psnr", "real"): 3.0})
  results.of_sets["fid", "generated"] = 7.0
  summary = results.summary()
  assert summary["psnr"]["real"]["mean"] == 2
  assert summary["psnr"]["real"]["clips"] == 2
  assert summary["fid"]["generated"]["mean"] == 7
  for values in ([1, np.nan, np.nan], [3, 4, np.nan]):
    results.add_to_curve("c", "real", values)
  np.testing.assert_array_equal(results.curves()["c"]["real"], [2, 4, np.nan])
  path = tmp_path / "clips.csv"
  results.write_csv(str(path))
  assert path.read_text().splitlines() == [
    "clip,track,psnr/real,x/copied",
    "a,,1,2",
    "b,1,3,",
  ]
  assert without_nan({"a": np.array([1.0, np.nan])}) == {"a": [1.0, None]}
