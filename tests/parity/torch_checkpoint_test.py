"""Reading and writing PyTorch's files; what needs torch skips without it."""

import collections
import io
import os
import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest

from w2l_jax import models, torch_checkpoint
from w2l_jax.torch_checkpoint import TorchCheckpointError

DATA = pathlib.Path(__file__).parent / "data"
WIDTH = 1 / 32
FILES = {
  "sync_expert": "sync_expert.pth",
  "generator": "generator.pth",
  "quality_discriminator": "quality_discriminator.pt",
}
INPUTS = {
  "sync_expert": ((4, 80, 16, 1), (4, 48, 96, 15)),
  "generator": ((2, 80, 16, 1), (2, 96, 96, 6)),
  "quality_discriminator": ((2, 48, 96, 3),),
}
MODELS = {
  "sync_expert": models.SyncExpert,
  "generator": models.Generator,
  "quality_discriminator": models.QualityDiscriminator,
}


def load(network, path=None):
  return torch_checkpoint.load(
    str(path or DATA / FILES[network]), network, width=WIDTH
  )


def relative_error(a, b):
  return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


# --- Without torch ----------------------------------------------------------


@pytest.mark.parametrize("network", FILES)
def test_stored_forward(network):
  """Eval-mode outputs equal what PyTorch computed from the same file."""
  rng = np.random.default_rng(2)
  inputs = [rng.random(s, dtype=np.float32) for s in INPUTS[network]]
  outputs = MODELS[network](width=WIDTH).apply(load(network), *inputs)
  with np.load(DATA / f"{network}.npz") as stored:
    for i, output in enumerate(jax.tree.leaves(outputs)):
      assert relative_error(output, stored[f"output_{i}"]) <= 1e-5


def test_adams_state_is_read_in_the_originals_order():
  variables, adam, step = torch_checkpoint.load_training(
    str(DATA / FILES["generator"]), "generator", width=WIDTH
  )
  assert step == adam.count == 1
  assert jax.tree.structure(adam.mu) == jax.tree.structure(variables["params"])
  kernel = adam.mu["face_decoder_blocks_2_0"]["kernel"]
  with np.load(DATA / "generator.npz") as stored:
    # IOHW to HWIO, flipped.
    expected = stored["exp_avg"][:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
  np.testing.assert_array_equal(kernel, expected)
  # After one step nu is the gradient squared times (1 - b2), as mu is the
  # gradient times (1 - b1).
  jax.tree.map(
    lambda m, n: np.testing.assert_allclose(
      n, (m / 0.1) ** 2 * 0.001, rtol=1e-4, atol=1e-30
    ),
    adam.mu,
    adam.nu,
  )


def test_plain_weights_have_no_training_state():
  _, adam, step = torch_checkpoint.load_training(
    str(DATA / FILES["sync_expert"]), "sync_expert", width=WIDTH
  )
  assert adam is None
  assert step == 0


@pytest.mark.parametrize("network", FILES)
def test_cut_off_anywhere(network, tmp_path):
  data = (DATA / FILES[network]).read_bytes()
  for share in (0.01, 0.3, 0.9, 0.999):
    path = tmp_path / "cut.pth"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(TorchCheckpointError, match="cut.pth: cannot be read"):
      load(network, path)


@pytest.mark.parametrize(
  "data", [b"", b"<!doctype html><html>Sign in</html>", b"\x00" * 1000]
)
def test_something_else(data, tmp_path):
  path = tmp_path / "weights.pth"
  path.write_bytes(data)
  with pytest.raises(TorchCheckpointError, match="a web page"):
    load("generator", path)


def test_no_file(tmp_path):
  with pytest.raises(TorchCheckpointError, match="no such file"):
    load("generator", tmp_path / "nothing.pth")


class Evil:
  """Its pickle runs a command when it is read as usual."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_that_run_code_are_refused(legacy, tmp_path):
  path, trace = tmp_path / "evil.pth", tmp_path / "ran"
  value = {"state_dict": collections.OrderedDict(), "x": Evil(trace)}
  if legacy:
    out = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {}, value, []):
      pickle.dump(part, out, protocol=2)
    path.write_bytes(out.getvalue())
  else:
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
  with pytest.raises(TorchCheckpointError, match="refused: .*system"):
    load("generator", path)
  assert not trace.exists()


def test_the_wrong_network_lists_its_keys():
  path = DATA / FILES["sync_expert"]
  with pytest.raises(TorchCheckpointError) as error:
    load("quality_discriminator", path)
  message = str(error.value)
  assert str(path) in message
  assert "missing: binary_pred.0.weight" in message
  assert "unexpected: face_encoder.0.conv_block.0.weight" in message
  assert " more" in message
  assert len(message.splitlines()) < 25


def test_another_width_lists_shapes():
  with pytest.raises(TorchCheckpointError, match=r"shape \(.*expected \("):
    torch_checkpoint.load(
      str(DATA / FILES["sync_expert"]), "sync_expert", width=1 / 16
    )


def test_unknown_network():
  with pytest.raises(ValueError, match="network is 'syncnet', expected one of"):
    load("syncnet", DATA / FILES["sync_expert"])


def test_saving_without_torch_is_one_sentence(monkeypatch, tmp_path):
  monkeypatch.setitem(__import__("sys").modules, "torch", None)
  with pytest.raises(TorchCheckpointError, match="needs torch") as error:
    torch_checkpoint.save(
      str(tmp_path / "x.pth"), load("generator"), "generator"
    )
  assert len(str(error.value).splitlines()) == 1
  assert not list(tmp_path.iterdir())


# --- With torch -------------------------------------------------------------


@pytest.fixture
def torch():
  return pytest.importorskip("torch")


@pytest.mark.parametrize("network", FILES)
def test_round_trip_is_bit_equal(network, torch, tmp_path):
  """torch to Flax to torch: every tensor, Adam's moments, the order of keys."""
  from tests.parity.torch_networks import TWINS

  torch.manual_seed(0)
  twin = TWINS[network](WIDTH)
  optimizer = torch.optim.Adam(twin.parameters(), lr=1e-4, betas=(0.5, 0.999))
  inputs = [
    torch.rand(s[0], s[3], *s[1:3], requires_grad=False)
    for s in INPUTS[network]
  ]
  for _ in range(2):
    optimizer.zero_grad()
    out = twin(*inputs)
    out = out if isinstance(out, tuple) else (out,)
    sum(x.square().sum() for x in out).backward()
    optimizer.step()
  path = tmp_path / "there.pth"
  torch.save(
    {
      "state_dict": twin.state_dict(),
      "optimizer": optimizer.state_dict(),
      "global_step": 2,
      "global_epoch": 0,
    },
    path,
  )
  variables, adam, step = torch_checkpoint.load_training(
    str(path), network, width=WIDTH
  )
  assert (adam.count, step) == (2, 2)
  back = tmp_path / "back.pth"
  torch_checkpoint.save(
    str(back), variables, network, adam=adam, betas=(0.5, 0.999), global_step=2
  )
  found = torch.load(back, weights_only=True)
  fresh = TWINS[network](WIDTH)
  fresh.load_state_dict(found["state_dict"], strict=True)
  assert list(found["state_dict"]) == list(twin.state_dict())
  for key, value in twin.state_dict().items():
    assert torch.equal(value, found["state_dict"][key]), key
  again = torch.optim.Adam(fresh.parameters())
  again.load_state_dict(found["optimizer"])
  assert again.param_groups[0]["betas"] == (0.5, 0.999)
  for i, state in optimizer.state_dict()["state"].items():
    for key, value in state.items():
      assert torch.equal(value, again.state_dict()["state"][i][key]), (i, key)
  # Training goes on from it.
  out = fresh(*inputs)
  out = out if isinstance(out, tuple) else (out,)
  sum(x.square().sum() for x in out).backward()
  again.step()


def test_half_precision_is_widened(torch, tmp_path):
  from tests.parity.torch_networks import TWINS

  twin = TWINS["generator"](WIDTH).half()
  for dtype in (torch.float16, torch.bfloat16, torch.float64):
    path = tmp_path / "other.pth"
    torch.save(twin.to(dtype).state_dict(), path)
    variables = load("generator", path)
    kernel = variables["params"]["output_block_1"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(
      kernel[0, 0].T, twin.output_block[1].weight.float()[:, :, 0, 0].detach()
    )


def test_views_that_share_numbers(torch, tmp_path):
  """Strides and offsets of tensors that are parts of others."""
  whole = torch.arange(24.0).reshape(4, 6)
  path = tmp_path / "views.pth"
  torch.save({"a": whole[1:, 2:], "b": whole.T, "c": torch.zeros(0, 3)}, path)
  found = torch_checkpoint.read(str(path))
  np.testing.assert_array_equal(found["a"], whole[1:, 2:])
  np.testing.assert_array_equal(found["b"], whole.T)
  assert found["c"].shape == (0, 3)


def test_parameters_and_scalars(torch, tmp_path):
  path = tmp_path / "p.pth"
  torch.save({"p": torch.nn.Parameter(torch.ones(2)), "n": 3, "s": "x"}, path)
  found = torch_checkpoint.read(str(path))
  np.testing.assert_array_equal(found["p"], [1, 1])
  assert (found["n"], found["s"]) == (3, "x")
