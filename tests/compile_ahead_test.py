"""Train steps are lowered for accelerators that are not there."""

import jax
import jax.export
import numpy as np
import pytest

from configs import expert_lrs2, gan_lrs2
from w2l_jax import compile_ahead, sharding
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
  memory = 2**28
  found = compile_ahead.largest_batch(config, expert, [None] * 8, memory)
  total = found["temporaries"] + found["arguments"]
  assert total <= 0.95 * memory
  # It grows by what 128 pictures take; with as much as it takes it is the same.
  for memory, same in ((total / 0.95 + 9, True), (total / 0.95 - 9, False)):
    again = compile_ahead.largest_batch(config, expert, [None] * 8, memory)
    assert (again["batch"] == found["batch"]) == same
  config.data.batch_size = found["batch"]
  put_out = compile_ahead.convolution_bytes(config, expert)
  share = compile_ahead._FULL_WIDTH_SHARE / 2
  assert found["temporaries"] == pytest.approx(put_out * share, rel=0.1)
  # What it was given is left as it was.
  assert config.width == expert.width == 1 / 32


def test_no_topology_is_one_sentence():
  with pytest.raises(RuntimeError, match='pip install "jax'):
    sharding.tpu_devices("v5e:0x0")
