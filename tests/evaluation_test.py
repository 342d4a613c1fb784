"""Figures of merit, against scikit-image and against trying everything."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.metrics
import skimage.transform

from w2l_jax.evaluation import image_metrics, sync_metrics

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
