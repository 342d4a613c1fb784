"""Pictures beside their truth, against scikit-image, clip by clip."""

import jax
import numpy as np
import pytest
import skimage.metrics
from conftest import talking_frames

from w2l_jax import evaluate_pictures
from w2l_jax.models import lpips


@pytest.fixture(scope="module")
def measures():
  return evaluate_pictures.PictureMeasures(None, None)


def clips(count: int = 18, size: int = 24):
  """(fake, real) [18, 24, 24, 3]: more than one batch, not a whole one."""
  rng = np.random.default_rng(0)
  real = np.stack(talking_frames(count, size=size))
  noise = rng.integers(-20, 21, real.shape)
  return np.clip(real.astype(int) + noise, 0, 255).astype(np.uint8), real


def test_against_scikit_image(measures):
  fake, real = clips()
  found = measures.compare(fake, real)
  for prefix, first in (("", 0), ("lower_", 12)):
    a, b = (x[:, first:] / 255.0 for x in (fake, real))
    psnr, ssim = [], []
    for x, y in zip(a, b, strict=True):
      psnr.append(skimage.metrics.peak_signal_noise_ratio(y, x, data_range=1))
      _, image = skimage.metrics.structural_similarity(
        y,
        x,
        data_range=1,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
      )
      # Valid windows only: the border of five is left out.
      ssim.append(image[5:-5, 5:-5].mean())
    assert found[f"{prefix}l1"] == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
    assert found[f"{prefix}psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
    assert found[f"{prefix}ssim"] == pytest.approx(np.mean(ssim), abs=1e-4)


def test_the_truth_itself(measures):
  _, real = clips()
  found = measures.compare(real, real)
  assert found["l1"] == 0 and found["lower_psnr"] == 100
  assert found["ssim"] == pytest.approx(1, abs=1e-5)
  assert found["mouth_correlation"] == pytest.approx(1)
  assert found["mouth_distance"] == 0


def test_a_still_picture(measures):
  _, real = clips()
  still = np.repeat(real[:1], len(real), axis=0)
  found = measures.compare(still, real)
  assert found["mouth_correlation"] == 0
  assert found["mouth_distance"] > 0
  assert measures.jitter(still) == 0 < measures.jitter(real)
  assert np.isnan(measures.jitter(real[:2]))
  assert np.isnan(measures.compare(real, still)["mouth_distance"])


def test_what_there_are_no_weights_of(measures, tmp_path):
  assert "--config.lpips" in measures.not_measured["lpips"]
  assert "--config.inception" in measures.not_measured["fid"]
  missing = str(tmp_path / "none.pth")
  others = evaluate_pictures.PictureMeasures(missing, missing)
  for name in ("lpips", "fid"):
    assert f"{missing}: no such file" in others.not_measured[name]


def test_lpips_is_of_rgb_and_enlarges_small_faces(monkeypatch):
  picture = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  shapes = jax.eval_shape(
    lpips.LPIPS("alex").init, jax.random.key(0), picture, picture
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.normal(0, 0.05, x.shape).astype(np.float32), shapes
  )
  monkeypatch.setattr(
    evaluate_pictures.metric_weights,
    "load_lpips",
    lambda path: (variables, "alex"),
  )
  measures = evaluate_pictures.PictureMeasures("some.pth", None)
  assert "lpips" not in measures.not_measured
  fake, real = clips(2)
  found = measures.compare(fake, real)
  # 24 pixels become 48 (whole) and 12 rows of 24 become 36 of 72.
  for prefix, first, times in (("", 0, 2), ("lower_", 12, 3)):
    a, b = (
      x[:, first:, :, ::-1].astype(np.float32) / 255 for x in (fake, real)
    )
    shape = (2, times * a.shape[1], times * a.shape[2], 3)
    a, b = (jax.image.resize(x, shape, "bilinear") for x in (a, b))
    expected = lpips.LPIPS("alex").apply(variables, a, b).mean()
    assert found[f"{prefix}lpips"] == pytest.approx(float(expected), rel=1e-4)


def test_judged_sets_are_not_called_fid(measures):
  rng = np.random.default_rng(0)
  measures = evaluate_pictures.PictureMeasures(None, None)
  for variant, mean in (("real", 0), ("generated", 1), ("copied", 3)):
    for _ in range(3):
      measures.add_judged(variant, rng.normal(mean, 1, (40, 4)))
  found = measures.distances()
  assert set(found) == {
    ("frechet_of_expert_features", v) for v in ("generated", "copied")
  }
  near, far = (
    found["frechet_of_expert_features", v] for v in ("generated", "copied")
  )
  assert near == pytest.approx(4, abs=1) and far == pytest.approx(36, abs=3)
