"""Loss values and gradients against NumPy, saturation included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2l_jax import losses


def numpy_bce(p, y):
  with np.errstate(divide="ignore"):
    return -(
      y * np.maximum(np.log(p), -100) + (1 - y) * np.maximum(np.log1p(-p), -100)
    )


@pytest.mark.parametrize("y", [0.0, 1.0, 0.3])
def test_binary_cross_entropy(y):
  p = np.array([1e-6, 0.2, 0.5, 0.9, 1 - 1e-6], np.float32)
  got = losses.binary_cross_entropy(p, jnp.full_like(p, y))
  np.testing.assert_allclose(got, numpy_bce(np.float64(p), y), rtol=2e-5)
  step = 1e-7
  slope = (
    numpy_bce(np.float64(p) + step, y) - numpy_bce(np.float64(p) - step, y)
  ) / (2 * step)
  grad = jax.grad(
    lambda p: losses.binary_cross_entropy(p, jnp.full_like(p, y)).sum()
  )(p)
  np.testing.assert_allclose(grad, slope, rtol=0.1)


def test_saturation_is_pytorchs():
  """Logs clamp at -100; the gradient's denominator is at least 1e-12."""
  p, y = jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 0.0, 1.0])
  np.testing.assert_allclose(
    losses.binary_cross_entropy(p, y), [100, 100, 0, 0]
  )
  grad = jax.grad(lambda p: losses.binary_cross_entropy(p, y).sum())(p)
  np.testing.assert_allclose(grad, [-1e12, 1e12, 0, 0])


def unit(rng, shape):
  x = np.abs(rng.normal(size=shape))
  return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_cosine_bce():
  rng = np.random.default_rng(0)
  a, v = unit(rng, (6, 32)), unit(rng, (6, 32))
  y = np.array([0, 1, 1, 0, 1, 0], np.float32)
  expected = numpy_bce(np.sum(np.float64(a) * v, axis=1), y).mean()
  np.testing.assert_allclose(losses.cosine_bce(a, v, y), expected, rtol=1e-5)
  expected = numpy_bce(np.sum(np.float64(a) * v, axis=1), 1.0)
  np.testing.assert_allclose(losses.sync_losses(a, v), expected, rtol=1e-5)


def test_masked_mean():
  values = np.array([1.0, 5.0, 3.0], np.float32)
  mean = lambda *mask: losses.masked_mean(values, np.float32(mask))  # noqa: E731
  assert mean(1, 0, 1) == 2 and mean(1, 1, 1) == 3 and mean(0, 0, 0) == 0


def test_cosine_past_one_is_clipped():
  """Rounding can put the cosine of equal vectors above 1: no NaN."""
  a = np.full((1, 3), 0.57735032, np.float32)
  assert np.sum(a * a) >= 1
  loss, grad = jax.value_and_grad(lambda a, v: losses.sync_losses(a, v).sum())(
    a, a
  )
  assert np.isfinite(loss) and np.all(np.isfinite(grad))
  loss = losses.cosine_bce(a, a, np.zeros(1, np.float32))
  assert np.isfinite(loss)


def test_l1_is_over_whole_frames():
  rng = np.random.default_rng(0)
  a, b = rng.uniform(size=(2, 3, 8, 8, 3)).astype(np.float32)
  np.testing.assert_allclose(
    losses.l1_loss(a, b), np.abs(np.float64(a) - b).mean(), rtol=1e-6
  )


def test_adversarial_losses():
  """BCE of the sigmoid, with the targets of hq_wav2lip_train.py."""
  real = np.array([[-3.0], [0.5], [4.0]], np.float32)
  fake = np.array([[2.0], [-0.2], [-6.0]], np.float32)
  sigmoid = lambda x: 1 / (1 + np.exp(-np.float64(x)))  # noqa: E731
  np.testing.assert_allclose(
    losses.generator_adversarial_loss(fake),
    numpy_bce(sigmoid(fake), 1.0).mean(),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    losses.discriminator_loss(real, fake),
    numpy_bce(sigmoid(real), 1.0).mean() + numpy_bce(sigmoid(fake), 0.0).mean(),
    rtol=1e-6,
  )


def test_adversarial_losses_are_finite_at_saturation():
  logits = jnp.array([[-1e4], [1e4]])
  for f in (
    losses.generator_adversarial_loss,
    lambda x: losses.discriminator_loss(x, x),
  ):
    value, grad = jax.value_and_grad(f)(logits)
    assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_the_papers_adversarial_loss():
  """log(1 - D(fake)): value and gradient, which vanish where D is sure."""
  logits = jnp.array([[-9.0], [-1.0], [0.0], [2.0]])
  probability = 1 / (1 + np.exp(-np.float64(logits)))
  value, grad = jax.value_and_grad(losses.generator_adversarial_loss)(
    logits, "saturating"
  )
  np.testing.assert_allclose(value, np.mean(np.log1p(-probability)), rtol=1e-6)
  np.testing.assert_allclose(grad, -probability / 4, rtol=1e-5)
  with pytest.raises(ValueError, match="'wgan', expected 'non_saturating' or"):
    losses.generator_adversarial_loss(logits, "wgan")


def numpy_cross_entropy(logits):
  """Of square logits against the diagonal, row by row."""
  exp = np.exp(logits - logits.max(-1, keepdims=True))
  return -np.log(np.diag(exp / exp.sum(-1, keepdims=True)))


@pytest.mark.parametrize("scale", [2.0, 14.0, 500.0])
def test_contrastive_losses(scale):
  """Within each clip's windows; within a batch; the scale is capped."""
  rng = np.random.default_rng(0)
  audio, face = unit(rng, (12, 6)), unit(rng, (12, 6))
  log_scale = jnp.float32(np.log(scale))
  loss, accuracy = losses.contrastive_loss(audio, face, log_scale, 4)
  found, correct = [], []
  for start in (0, 4, 8):
    part = slice(start, start + 4)
    logits = min(scale, 100.0) * audio[part] @ face[part].T
    found += [numpy_cross_entropy(logits), numpy_cross_entropy(logits.T)]
    correct += list(logits.argmax(1) == np.arange(4))
  np.testing.assert_allclose(loss, np.mean(found), rtol=2e-5)
  np.testing.assert_allclose(accuracy, np.mean(correct))
  logits = min(scale, 100.0) * face[:3] @ audio.T
  logits -= logits.max(-1, keepdims=True)
  expected = np.log(np.exp(logits).sum(-1)) - np.diag(logits)
  np.testing.assert_allclose(
    losses.contrastive_sync_losses(audio, face[:3], log_scale),
    expected,
    rtol=2e-4,
    atol=1e-5,
  )
