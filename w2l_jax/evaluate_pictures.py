"""Pictures beside their truth: L1, PSNR, SSIM, LPIPS, Fréchet distances.

Each of the whole face and of its lower half, which is what is generated.  The
measures are evaluation/'s; the networks of LPIPS and FID are in models/, with
weights that the user brings.
"""

import jax
import jax.numpy as jnp
import numpy as np

from w2l_jax import metric_weights, network_inputs
from w2l_jax.evaluation import frechet, image_metrics, mouth_measure
from w2l_jax.models import inception, lpips
from w2l_jax.torch_file import TorchCheckpointError

_BATCH = 16
PARTS = {"": lambda x: x, "lower_": network_inputs.lower_half}


def _batches(*arrays: np.ndarray):
  """Yields (parts of one shape each, how many are not filling)."""
  for start in range(0, len(arrays[0]), _BATCH):
    parts = [a[start : start + _BATCH] for a in arrays]
    count = len(parts[0])
    pad = [(0, _BATCH - count)] + [(0, 0)] * (arrays[0].ndim - 1)
    yield [np.pad(p, pad, mode="edge") for p in parts], count


def _rgb(pictures: jax.Array) -> jax.Array:
  return pictures[..., ::-1]


def _enlarged(pictures: jax.Array) -> jax.Array:
  """Whole times as large, if need be, so that LPIPS leaves a map of them."""
  n, height, width, c = pictures.shape
  times = -(-lpips.SMALLEST // min(height, width))
  if times == 1:
    return pictures
  shape = (n, times * height, times * width, c)
  return jax.image.resize(pictures, shape, "bilinear")


class PictureMeasures:
  """Measures clips of pictures, one after the other."""

  def __init__(self, lpips_file: str | None, inception_file: str | None):
    """Reads the weights that there are.

    Args:
      lpips_file: of metric_weights.load_lpips; None: none.
      inception_file: of metric_weights.load_inception; None: none.
    """
    self.not_measured: dict[str, str] = {}
    self._features = None
    self._statistics: dict = {}
    distance, variables = None, None
    if lpips_file:
      try:
        variables, net = metric_weights.load_lpips(lpips_file)
        distance = lpips.LPIPS(net)
      except TorchCheckpointError as e:
        self.not_measured["lpips"] = str(e)
    else:
      self.not_measured["lpips"] = (
        "no weights: give the lpips package's state_dict, --config.lpips=FILE"
      )
    if inception_file:
      try:
        inception_variables = metric_weights.load_inception(inception_file)
        self._features = jax.jit(inception.Inception().apply)
        self._inception_variables = inception_variables
      except TorchCheckpointError as e:
        self.not_measured["fid"] = str(e)
    else:
      self.not_measured["fid"] = (
        "no weights: give pytorch-fid's pt_inception file, "
        "--config.inception=FILE"
      )

    @jax.jit
    def compare(variables, fake, real):
      fake, real = (network_inputs.to_float(x) for x in (fake, real))
      found = {}
      for prefix, part in PARTS.items():
        a, b = part(fake), part(real)
        found[f"{prefix}l1"] = image_metrics.l1(a, b)
        found[f"{prefix}psnr"] = image_metrics.psnr(a, b)
        found[f"{prefix}ssim"] = image_metrics.ssim(a, b)
        if distance is not None:
          a, b = (_enlarged(_rgb(x)) for x in (a, b))
          found[f"{prefix}lpips"] = distance.apply(variables, a, b)
      return found

    self._compare, self._variables = compare, variables

  def compare(self, fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Means over one clip's frames.

    Args:
      fake, real: [n, S, S, 3] uint8 BGR.

    Returns:
      {measure: figure}; also mouth_correlation and mouth_distance, of the
      mouth's opening in both, in units of the real track's deviation.
    """
    found: dict[str, list] = {}
    for (a, b), count in _batches(fake, real):
      for name, values in self._compare(self._variables, a, b).items():
        found.setdefault(name, []).append(np.asarray(values)[:count])
    means = {k: float(np.concatenate(v).mean()) for k, v in found.items()}
    tracks = [mouth_measure.mouth_opening(x) for x in (fake, real)]
    means["mouth_correlation"] = mouth_measure.track_correlation(*tracks)
    deviation = float(np.std(tracks[1]))
    means["mouth_distance"] = (
      float(np.abs(tracks[0] - tracks[1]).mean()) / deviation
      if deviation
      else float("nan")
    )
    return means

  @staticmethod
  def mouth_correlation(fake: np.ndarray, real: np.ndarray) -> float:
    """Of the mouth's opening in two clips, of two people perhaps."""
    return mouth_measure.track_correlation(
      *(mouth_measure.mouth_opening(x) for x in (fake, real))
    )

  @staticmethod
  def jitter(frames: np.ndarray) -> float:
    """The lower half's jitter, [n, S, S, 3] uint8; NaN for fewer than 3."""
    if len(frames) < 3:
      return float("nan")
    lower = network_inputs.lower_half(frames.astype(np.float32) / 255)
    return image_metrics.jitter(lower)

  def add_features(self, variant: str, frames: np.ndarray) -> None:
    """Adds a clip's frames to the sets whose Fréchet distance is FID."""
    if self._features is None:
      return
    for (part,), count in _batches(frames):
      pictures = network_inputs.to_float(jnp.asarray(part))
      for prefix, cut in PARTS.items():
        features = self._features(
          self._inception_variables, _rgb(cut(pictures))
        )
        self._set(f"{prefix}fid", variant).add(np.asarray(features)[:count])

  def add_judged(self, variant: str, lips: np.ndarray) -> None:
    """Adds an expert's features of lips: a Fréchet distance that is not FID."""
    self._set("frechet_of_expert_features", variant).add(lips)

  def _set(self, measure: str, variant: str) -> frechet.FeatureStatistics:
    return self._statistics.setdefault(
      (measure, variant), frechet.FeatureStatistics()
    )

  def distances(self) -> dict[tuple[str, str], float]:
    """Returns {(measure, variant): distance from the real set}."""
    return {
      (measure, variant): frechet.between(found, self._set(measure, "real"))
      for (measure, variant), found in list(self._statistics.items())
      if variant != "real"
    }
