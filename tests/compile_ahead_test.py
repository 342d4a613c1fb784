"""Train steps are lowered for accelerators that are not there."""

import importlib.util
import re
import subprocess
import sys
import types

import jax
import jax.export
import numpy as np
import pytest

from configs import expert_lrs2, gan_lrs2
from w2l_jax import absent_devices, compile_ahead, sharding
from w2l_jax.models import convolution


def configs(get, **fields):
  config, expert = get("tiny"), expert_lrs2.get_config("tiny")
  config.update(fields)
  return config, expert


@pytest.mark.parametrize("get", [expert_lrs2.get_config, gan_lrs2.get_config])
def test_steps_are_lowered_for_gpu_and_tpu(get):
  config, expert = configs(get, compute_dtype="bfloat16")
  arguments = compile_ahead.abstract_arguments(config, expert)
  step = compile_ahead.jitted_step(config, expert, sharding.make_mesh(4))
  exported = jax.export.export(step, platforms=["cuda", "tpu"])(*arguments)
  assert exported.platforms == ("cuda", "tpu")
  state = arguments[0]
  shapes = [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
  # What comes out is a state again, and then figures.
  found = [(x.shape, np.dtype(x.dtype)) for x in exported.out_avals]
  assert found[: len(shapes)] == shapes


def test_batches_have_the_pipelines_shapes(data_dir):
  """The abstract batch is what input_pipeline.py makes."""
  from w2l_jax import dataset, input_pipeline, train_expert

  split = dataset.Split(dataset.builder_dir(data_dir, 24), "train")
  for get in (expert_lrs2.get_config, gan_lrs2.get_config):
    config, expert = configs(get)
    batch = next(
      input_pipeline.train_batches(
        split, train_expert.window_spec(config), config.stage, config
      )(0)
    )
    _, abstract, _ = compile_ahead.abstract_arguments(config, expert)
    assert {k: (v.shape, v.dtype) for k, v in abstract.items()} == {
      k: (v.shape, v.dtype) for k, v in batch.items()
    }


def test_what_a_tpu_fills_up():
  """Lanes of 128 numbers and rows of 32 bytes, as is cheapest."""
  assert compile_ahead.laid_out((128, 4, 4, 16), 2) == 128 * 4 * 4 * 16 * 2
  # Few pictures with few channels: the pictures are filled up to 128.
  assert compile_ahead.laid_out((20, 4, 4, 16), 2) == 128 * 4 * 4 * 16 * 2
  # Few pictures with many channels: nothing is.
  assert compile_ahead.laid_out((16, 4, 4, 256), 2) == 16 * 4 * 4 * 256 * 2
  # Five rows of pixels become eight.
  assert compile_ahead.laid_out((1, 2, 5, 128), 4) == 2 * 8 * 128 * 4


@pytest.mark.parametrize("get", [expert_lrs2.get_config, gan_lrs2.get_config])
def test_what_a_cpu_does_instead_is_not_counted(get, monkeypatch):
  """Nor what is traced for a gradient and not used."""
  config, expert = configs(get, width=0.25)
  found = compile_ahead.convolution_bytes(config, expert)
  with monkeypatch.context() as m:
    m.setattr(convolution, "_is_winograds", lambda *_: False)
    m.setattr(convolution, "_LEAST_CHANNELS", 10**6)
    assert compile_ahead.convolution_bytes(config, expert) == found


def test_the_largest_batch(monkeypatch):
  """With so many windows it fits by its own reckoning, with more it does not.

  The compiler is played: it takes half of what the convolutions put out.
  """
  config, expert = configs(expert_lrs2.get_config, compute_dtype="bfloat16")

  class Compiled:
    def memory_analysis(self):
      return self

  def compile_step(config, expert_config, devices):
    compiled, per_device = Compiled(), config.copy_and_resolve_references()
    per_device.data.batch_size //= len(devices)
    put_out = compile_ahead.convolution_bytes(per_device, expert_config)
    compiled.temp_size_in_bytes = put_out // 2
    return compiled, 1.0

  monkeypatch.setattr(compile_ahead, "compile_step", compile_step)

  def largest_batch(memory):
    monkeypatch.setitem(absent_devices.MEMORY, "v5e", memory)
    return compile_ahead.largest_batch(config, expert, [None] * 8, "v5e:2x4")

  memory = 2**28
  found = largest_batch(memory)
  total = found["temporaries"] + found["arguments"]
  assert total <= 0.95 * memory
  # It grows by what 128 pictures take; with as much as it takes it is the same.
  for memory, same in ((total / 0.95 + 9, True), (total / 0.95 - 9, False)):
    again = largest_batch(memory)
    assert (again["batch"] == found["batch"]) == same
  config.data.batch_size = found["batch"]
  put_out = compile_ahead.convolution_bytes(config, expert)
  share = compile_ahead._FULL_WIDTH_SHARE / 2
  assert found["temporaries"] == pytest.approx(put_out * share, rel=0.1)
  # What it was given is left as it was.
  assert config.width == expert.width == 1 / 32


def test_the_largest_batch_of_a_gpu(monkeypatch):
  """Temporaries grow evenly; three quarters of the memory are JAX's."""
  config, expert = configs(expert_lrs2.get_config)

  class Compiled:
    def memory_analysis(self):
      return self

  def compile_step(config, expert_config, devices):
    compiled = Compiled()
    windows = config.data.batch_size // len(devices)
    compiled.temp_size_in_bytes = 10**8 + 10**6 * windows
    return compiled, 1.0

  monkeypatch.setattr(compile_ahead, "compile_step", compile_step)
  monkeypatch.setitem(absent_devices.MEMORY, "h100", 10**9)
  found = compile_ahead.largest_batch(config, expert, [None] * 2, "h100:2")
  batch = found["batch"]
  assert found["temporaries"] == 10**8 + 10**6 * batch
  config.data.batch_size = batch
  arguments = compile_ahead.abstract_arguments(config, expert)
  assert found["arguments"] == compile_ahead._bytes(arguments)
  total = found["temporaries"] + found["arguments"]
  window = 10**6 + compile_ahead._bytes(arguments[1]) // batch
  assert total <= 0.75 * 10**9 < total + window


def test_no_window_fits(monkeypatch):
  config, expert = configs(expert_lrs2.get_config)
  monkeypatch.setitem(absent_devices.MEMORY, "h100", 1000)
  monkeypatch.setattr(
    compile_ahead,
    "_line_of_gpu",
    lambda *_: lambda batch: np.array([4e9 * batch, 1e9]),
  )
  with pytest.raises(ValueError, match=r"one window .* takes 5\.0 GB, of 0\.0"):
    compile_ahead.largest_batch(config, expert, [None], "h100:1")


def test_an_expert_for_other_faces():
  config, _ = configs(gan_lrs2.get_config)
  with pytest.raises(ValueError, match="24 pixels, expert_config of 96"):
    compile_ahead.abstract_arguments(config, expert_lrs2.get_config())


@pytest.mark.parametrize(
  ("topology", "asked"),
  [("h100:8", "1x1x8"), ("a100:2x4", "1x2x4"), ("v5e:2x4", "v5e:2x4")],
)
def test_what_the_compilers_are_asked_for(topology, asked, monkeypatch):
  """Slices, machines and GPUs of each; a TPU's as libtpu names it."""
  given = {}

  def get_topology_desc(**kwargs):
    given.update(kwargs)
    return types.SimpleNamespace(devices=("device",))

  monkeypatch.setattr(
    absent_devices.topologies, "get_topology_desc", get_topology_desc
  )
  assert absent_devices.devices(topology) == ["device"]
  if absent_devices.is_gpu(topology):
    assert (given["platform"], given["topology"]) == ("cuda", asked)
    memory = absent_devices.MEMORY[topology.split(":")[0]]
    assert f"device_memory_size: {memory}\n" in given["target_config"]
  else:
    assert (given["platform"], given["topology_name"]) == ("tpu", asked)


@pytest.mark.parametrize(
  ("topology", "expected"),
  [
    ("v9:2", "expected one of v4, "),
    ("h100", "h100:2x8, machines"),
    ("h100:0", "h100:2x8, machines"),
    ("a100:2x2x2", "a100:2x8, machines"),
  ],
)
def test_unknown_topologies(topology, expected):
  with pytest.raises(ValueError, match=expected):
    absent_devices.devices(topology)


HAS_CUDA = any(
  importlib.util.find_spec("jax_plugins")
  and importlib.util.find_spec(f"jax_plugins.xla_cuda{version}")
  for version in (12, 13)
)


@pytest.mark.skipif(HAS_CUDA, reason="CUDA's plugin is installed")
def test_no_compiler_for_gpus_is_one_sentence():
  with pytest.raises(RuntimeError, match=r"pip install -e '\.\[cuda\]'"):
    absent_devices.devices("h100:8")


@pytest.mark.skipif(not HAS_CUDA, reason="needs pip install -e '.[cuda]'")
def test_a_step_of_two_gpus_that_are_not_there():
  """Compiled by a process of its own, as CUDA's plugin is loaded once."""
  output = subprocess.run(
    [
      sys.executable,
      "-m",
      "launch.compile_ahead",
      "--config=configs/expert_lrs2.py:tiny",
      "--config.compute_dtype=bfloat16",
      "--config.data.batch_size=8",
      "--topology=h100:2",
    ],
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert "8 windows on 2 devices (h100:2)" in output
  accessed = re.search(r"memory accessed +(\d+\.\d) MB a step", output)
  state, _, _ = compile_ahead.abstract_arguments(
    *configs(expert_lrs2.get_config)
  )
  # At least, the state is read and written.
  assert 2 * compile_ahead._bytes(state) < float(accessed[1]) * 1e6 < 2e7
  assert re.search(r"collectives +\d+ all-reduce", output)


def test_no_topology_is_one_sentence():
  with pytest.raises(RuntimeError, match=r"pip install -e '\.\[tpu\]'"):
    absent_devices.devices("v5e:0x0")
