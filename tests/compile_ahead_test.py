"""Train steps are lowered for accelerators that are not there."""

import jax
import jax.export
import numpy as np
import pytest

from configs import expert_lrs2, gan_lrs2
from w2l_jax import compile_ahead, sharding


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


def test_no_topology_is_one_sentence():
  with pytest.raises(RuntimeError, match='pip install "jax'):
    sharding.tpu_devices("v5e:0x0")
