"""Networks that only measure against PyTorch; what needs torch skips without.

LPIPS and Inception are held against the published packages themselves (lpips,
pytorch-fid) where these and torchvision are installed.
"""

import pathlib

import jax
import numpy as np
import pytest

from w2l_jax import metric_weights
from w2l_jax.models import inception, lpips, syncnet
from w2l_jax.torch_file import TorchCheckpointError

DATA = pathlib.Path(__file__).parent / "data"
WIDTH = 1 / 32


def relative_error(a, b):
  return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


def syncnet_inputs():
  rng = np.random.default_rng(2)
  frames = rng.integers(0, 256, (3, 5, 224, 224, 3)).astype(np.float32)
  return frames, rng.normal(0, 10, (3, 20, 13)).astype(np.float32)


def test_stored_syncnet():
  """Without torch: what it computed from the same file."""
  variables = metric_weights.load_syncnet(str(DATA / "syncnet.model"), WIDTH)
  outputs = syncnet.SyncNet(WIDTH).apply(variables, *syncnet_inputs())
  with np.load(DATA / "syncnet.npz") as stored:
    for i, output in enumerate(outputs):
      assert relative_error(output, stored[f"output_{i}"]) <= 1e-5


def test_syncnets_size():
  """Of the published network: keys and shapes by the table of its source."""
  shapes = jax.eval_shape(
    syncnet.SyncNet().init,
    jax.random.key(0),
    *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in syncnet_inputs()),
  )
  count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
  assert count == 13_631_616


@pytest.mark.parametrize(
  "load",
  [
    metric_weights.load_syncnet,
    metric_weights.load_lpips,
    metric_weights.load_inception,
  ],
)
def test_another_network(load, tmp_path):
  """All keys that do not fit are told, and what was expected."""
  other = str(DATA / "sync_expert.pth")
  with pytest.raises(TorchCheckpointError) as error:
    load(other)
  message = str(error.value)
  assert message.startswith(f"{other}: is no ")
  assert "missing" in message and "unexpected: face_encoder" in message
  with pytest.raises(TorchCheckpointError, match="no such file"):
    load(str(tmp_path / "none.pth"))


def test_another_width():
  with pytest.raises(TorchCheckpointError, match=r"shape \(2,\), expected"):
    metric_weights.load_syncnet(str(DATA / "syncnet.model"), 1 / 16)


def test_small_pictures_are_refused():
  small = np.zeros((1, 31, 64, 3), np.float32)
  with pytest.raises(ValueError, match="at least 32"):
    lpips.LPIPS().init(jax.random.key(0), small, small)


def test_windows_of_another_size_are_refused():
  frames, mfcc = np.zeros((1, 5, 96, 96, 3)), np.zeros((1, 20, 13))
  with pytest.raises(ValueError, match="224, 224"):
    syncnet.SyncNet(WIDTH).init(jax.random.key(0), frames, mfcc)


# --- With torch -------------------------------------------------------------


def test_syncnet_at_full_size(tmp_path):
  torch = pytest.importorskip("torch")
  from tests.parity import make_stored
  from tests.parity.torch_judges import SyncNet

  torch.manual_seed(0)
  network = SyncNet()
  make_stored.randomise_statistics(network)
  network.eval()
  path = tmp_path / "syncnet_v2.model"
  torch.save(network.state_dict(), path)
  variables = metric_weights.load_syncnet(str(path))
  outputs = jax.jit(syncnet.SyncNet().apply)(variables, *syncnet_inputs())
  expected = make_stored.syncnet_outputs(network)
  for a, b in zip(outputs, expected, strict=True):
    assert relative_error(a, b) <= 1e-5


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_against_its_package(net, tmp_path):
  """With a backbone of random weights and the package's own heads."""
  torch = pytest.importorskip("torch")
  package = pytest.importorskip("lpips")
  torch.manual_seed(0)
  network = package.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
  path = tmp_path / "lpips.pth"
  torch.save(network.state_dict(), path)
  rng = np.random.default_rng(0)
  for shape in ((3, 64, 96, 3), (2, 33, 33, 3)):
    real = rng.random(shape, dtype=np.float32)
    fake = np.clip(real + rng.normal(0, 0.1, shape), 0, 1).astype(np.float32)
    with torch.no_grad():
      expected = network(
        *(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (fake, real)),
        normalize=True,
      )
    variables, found = metric_weights.load_lpips(str(path))
    assert found == net
    got = lpips.LPIPS(net).apply(variables, fake, real)
    assert got.shape == (shape[0],)
    assert relative_error(got, expected.numpy().ravel()) <= 1e-5
    same = lpips.LPIPS(net).apply(variables, real, real)
    np.testing.assert_allclose(same, 0, atol=1e-7)


def test_inception_against_pytorch_fid(tmp_path, monkeypatch):
  """With random weights, which pytorch-fid would else download."""
  torch = pytest.importorskip("torch")
  package = pytest.importorskip("pytorch_fid.inception")
  from tests.parity import make_stored

  with monkeypatch.context() as patch:
    patch.setattr(package, "load_state_dict_from_url", lambda *_, **__: {})
    patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
    torch.manual_seed(0)
    network = package.fid_inception_v3()
  for name, weight in network.named_parameters():
    if name.endswith("conv.weight"):
      torch.nn.init.kaiming_normal_(weight)
  make_stored.randomise_statistics(network)
  monkeypatch.setattr(package, "fid_inception_v3", lambda: network)
  whole = package.InceptionV3().eval()
  path = tmp_path / "inception.pth"
  torch.save(network.state_dict(), path)
  variables = metric_weights.load_inception(str(path))
  rng = np.random.default_rng(0)
  # Lower halves of 96-pixel faces, and what is larger than the network takes.
  for shape in ((1, 48, 96, 3), (1, 400, 330, 3)):
    pictures = rng.random(shape, dtype=np.float32)
    with torch.no_grad():
      (expected,) = whole(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    got = jax.jit(inception.Inception().apply)(variables, pictures)
    assert relative_error(got, expected.numpy()[:, :, 0, 0]) <= 1e-5
