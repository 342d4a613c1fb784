"""Networks in single files, and the command that converts them."""

import importlib.util
import json
import os
import struct

import jax
import numpy as np
import pytest
from conftest import assert_trees_equal

from configs import expert_rendered
from launch import convert_checkpoint
from w2l_jax import (
  checkpoints,
  inference,
  torch_checkpoint,
  train_expert,
  train_generator,
  weight_files,
)
from w2l_jax.checkpoints import CheckpointError
from w2l_jax.train_state import adam_of


def test_every_form_holds_the_same_network(gan_run, expert_run, tmp_path):
  """workdir to safetensors to PyTorch to workdir: equal bits, same config."""

  def load_discriminator(path):
    config = checkpoints.load_config(path, "generator")
    abstract = jax.eval_shape(
      train_generator.make_discriminator(config).init,
      jax.random.key(0),
      *train_generator.discriminator_inputs(config),
    )
    return checkpoints.load_variables(path, "discriminator", abstract), config

  for network, stage, workdir, load in (
    ("generator", "generator", gan_run[0], inference.load_generator),
    ("sync_expert", "expert", expert_run[0], train_expert.load_frozen),
    ("quality_discriminator", "generator", gan_run[0], load_discriminator),
  ):
    variables, config = load(workdir)
    source = workdir
    suffixes = [".safetensors", ""]
    if importlib.util.find_spec("torch"):
      suffixes.insert(1, ".pth")
    for suffix in suffixes:
      target = str(tmp_path / f"{network}{suffix}")
      convert_checkpoint.convert(network, source, target)
      found, found_config = load(target)
      assert_trees_equal(found, variables)
      for key in ("stage", "width", "image_size", "windows", "preparation"):
        assert found_config[key] == config[key]
      source = target
    assert checkpoints.describe(source)[:2] == (stage, 0)


def test_adams_state_goes_to_pytorch_and_back(gan_run, tmp_path):
  pytest.importorskip("torch")
  workdir, state = gan_run
  for network, name in (
    ("generator", "generator"),
    ("quality_discriminator", "discriminator"),
  ):
    source, expected = workdir, getattr(state, name)
    for target in (f"{name}.pth", name):
      target = str(tmp_path / target)
      convert_checkpoint.convert(network, source, target)
      adam = checkpoints.load_adam(target, name, expected.variables)
      assert_trees_equal(adam, adam_of(expected.opt_state))
      source = target


def test_a_contrastive_experts_temperature_goes_along(tmp_path):
  """The original's file has no place for it; the config beside it has."""
  pytest.importorskip("torch")
  config = expert_rendered.get_config("tiny")
  config.image_size = 24
  state = train_expert.create_state(config, jax.random.key(0))
  variables = jax.device_get(state.expert.variables)
  variables["params"]["logit_scale"] = np.float32(2.5)
  plain = checkpoints.to_plain(config)
  plain["preparation"] = weight_files.original_config("expert")["preparation"]
  source = str(tmp_path / "x.safetensors")
  weight_files.save_safetensors(source, variables, plain)
  target = str(tmp_path / "x.pth")
  convert_checkpoint.convert("sync_expert", source, target)
  found, _ = train_expert.load_frozen(target)
  found = jax.device_get(found)
  scale = found["params"].pop("logit_scale")
  np.testing.assert_allclose(scale, variables["params"].pop("logit_scale"))
  assert_trees_equal(found, variables)


def test_pytorch_files_are_taken_for_the_originals(tmp_path):
  """Without a .json beside them; and that .json is believed."""
  path = tmp_path / "wav2lip.pth"
  path.write_bytes(b"")
  config = checkpoints.load_config(str(path), "generator")
  assert config["width"] == 1
  assert config["image_size"] == 96
  assert config["windows"]["inference_mel_offset"] == 0
  assert config["windows"]["frame_mel_offset"] == -1
  (tmp_path / "wav2lip.json").write_text(
    json.dumps({"stage": "generator", "width": 0.5})
  )
  assert checkpoints.load_config(str(path), "generator")["width"] == 0.5
  (tmp_path / "wav2lip.json").write_text("{")
  with pytest.raises(CheckpointError, match=r"wav2lip.json: is no JSON"):
    checkpoints.load_config(str(path), "generator")
  os.remove(tmp_path / "wav2lip.json")
  with pytest.raises(
    CheckpointError, match="cannot be read as PyTorch weights"
  ):
    inference.load_generator(str(path))


def test_bad_safetensors(tmp_path, expert_run):
  path = tmp_path / "x.safetensors"
  path.write_bytes(b"<html>")
  with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
    inference.load_generator(str(path))
  good = str(tmp_path / "good.safetensors")
  convert_checkpoint.convert("sync_expert", expert_run[0], good)
  with pytest.raises(CheckpointError, match="of stage 'expert', expected one"):
    inference.load_generator(good)
  with open(good, "rb") as f:
    data = f.read()
  path.write_bytes(data[:-100])
  with pytest.raises(CheckpointError, match="x.safetensors: cannot be read"):
    train_expert.load_frozen(str(path))
  variables, config = train_expert.load_frozen(good)
  variables = jax.device_get(variables)
  del variables["params"]["audio_encoder"]["block_0"]["conv"]["bias"]
  weight_files.save_safetensors(str(path), variables, config)
  with pytest.raises(CheckpointError, match="block_0.*bias.* is missing"):
    train_expert.load_frozen(str(path))
  import safetensors.numpy

  safetensors.numpy.save_file({"a": np.zeros(1)}, str(path))
  with pytest.raises(CheckpointError, match="has no config in its metadata"):
    train_expert.load_frozen(str(path))


def test_nothing_is_overwritten(expert_run, tmp_path):
  target = tmp_path / "there.safetensors"
  target.write_bytes(b"x")
  with pytest.raises(CheckpointError, match="exists already"):
    convert_checkpoint.convert("sync_expert", expert_run[0], str(target))
  assert target.read_bytes() == b"x"


def test_evaluation_asks_for_a_workdir(tmp_path):
  path = tmp_path / "x.pth"
  path.write_bytes(b"x")
  with pytest.raises(CheckpointError, match=r"launch\.convert_checkpoint"):
    checkpoints.step_folder(str(path))


def test_the_original_config_matches_the_originals_files():
  """What single files are taken for is what configs/ call the original."""
  from configs import expert_lrs2, gan_lrs2

  for stage, module in (("expert", expert_lrs2), ("generator", gan_lrs2)):
    original = weight_files.original_config(stage)
    config = checkpoints.to_plain(module.get_config())
    if stage == "expert":  # It knows no inference.
      del original["windows"]["inference_mel_offset"]
      del config["windows"]["inference_mel_offset"]
    for key in ("stage", "image_size", "width", "windows"):
      assert original[key] == config[key], key
  assert set(torch_checkpoint.NETWORKS) >= {"sync_expert", "generator"}


def test_an_optimizer_that_does_not_fit_matters_to_training_alone(tmp_path):
  """Weights can be used although their file's Adam is another network's."""
  torch = pytest.importorskip("torch")
  from tests.parity.torch_networks import TWINS

  twin = TWINS["generator"](1 / 32)
  state = {"state": {}, "param_groups": [{"params": [0, 1]}]}
  path = tmp_path / "x.pth"
  torch.save({"state_dict": twin.state_dict(), "optimizer": state}, path)
  config = {**weight_files.original_config("generator"), "width": 1 / 32}
  path.with_suffix(".json").write_text(json.dumps(config))
  variables, _ = inference.load_generator(str(path))
  with pytest.raises(CheckpointError, match="its optimizer knows 2 parameters"):
    checkpoints.load_adam(str(path), "generator", variables)


def test_no_path_of_the_machine_is_handed_on(gan_run, tmp_path):
  target = str(tmp_path / "generator.safetensors")
  convert_checkpoint.convert("generator", gan_run[0], target)
  config = checkpoints.load_config(target, "generator")
  assert config["expert_checkpoint"] is None
  assert config["data"]["dir"] is config["expert"]["data"]["dir"] is None
  assert str(tmp_path.parent) not in json.dumps(config)


def _tensor_bytes(path):
  """Without the header, whose length depends on metadata and padding."""
  with open(path, "rb") as f:
    (header,) = struct.unpack("<Q", f.read(8))
  return os.path.getsize(path) - 8 - header


def test_bfloat16_halves_a_file(tmp_path, gan_run):
  """Read again as float32, within its rounding of what was trained."""
  path, whole = (str(tmp_path / f"{n}.safetensors") for n in ("half", "whole"))
  convert_checkpoint.convert("generator", gan_run[0], path, bfloat16=True)
  convert_checkpoint.convert("generator", gan_run[0], whole)
  weights = sum(
    x.size for x in jax.tree.leaves(inference.load_generator(whole)[0])
  )
  assert _tensor_bytes(whole) - _tensor_bytes(path) == 2 * weights
  found, _ = inference.load_generator(path)
  trained, _ = inference.load_generator(gan_run[0])
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(trained), strict=True
  ):
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-30)


def test_others_may_read_them_if_the_umask_lets_them(tmp_path, expert_run):
  path = str(tmp_path / "expert.safetensors")
  variables, config = train_expert.load_frozen(expert_run[0])
  before = os.umask(0o027)
  try:
    weight_files.save_safetensors(path, variables, config)
  finally:
    os.umask(before)
  assert os.stat(path).st_mode & 0o777 == 0o640


def test_only_safetensors_are_written_in_bfloat16(tmp_path, gan_run):
  path = str(tmp_path / "x.pth")
  with pytest.raises(checkpoints.CheckpointError, match="only .safetensors"):
    convert_checkpoint.convert("generator", gan_run[0], path, bfloat16=True)
