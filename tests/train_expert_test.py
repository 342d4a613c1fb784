"""Stage 1 from its shipped config, at :tiny, on a prepared set."""

import jax
import numpy as np
from conftest import (
  STEPS,
  assert_trees_equal,
  expert_config,
  untimed,
)

from w2l_jax import (
  dataset,
  input_pipeline,
  metrics,
  sharding,
  train_expert,
)


def test_expert_trains(expert_run, data_dir):
  workdir, state = expert_run
  assert state.step == STEPS
  first = train_expert.create_state(expert_config(data_dir), jax.random.key(0))
  changed = jax.tree.map(
    lambda a, b: bool(np.any(a != b)), first.expert.params, state.expert.params
  )
  for path, found in jax.tree.leaves_with_path(changed):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    # Normalisation takes a convolution's bias away: it has no gradient.
    assert found != name.endswith("conv/bias"), name
  lines = metrics.read_metrics(workdir)
  assert all(np.isfinite(list(line.values())).all() for line in lines)
  steps = [line["step"] for line in lines if "train/loss" in line]
  assert steps == [1, 2, 3, 4]
  last = [line for line in lines if "eval/loss" in line][-1]
  for name in (
    "eval/two_way_accuracy",
    "eval/balanced_accuracy",
    "eval/two_way_accuracy_all",
    "eval/balanced_accuracy_all",
  ):
    assert 0 <= last[name] <= 1


def test_expert_resumes_exactly(expert_run, data_dir, tmp_path):
  """Two steps, stopped, then two more: bit for bit the uninterrupted run."""
  workdir, state = expert_run
  train_expert.train_and_evaluate(expert_config(data_dir, 2), str(tmp_path))
  resumed = train_expert.train_and_evaluate(
    expert_config(data_dir), str(tmp_path)
  )
  assert_trees_equal(jax.device_get(resumed), state)
  assert untimed(tmp_path) == untimed(workdir)


def test_a_finished_run_does_nothing(expert_run, data_dir):
  workdir, state = expert_run
  before = untimed(workdir)
  again = train_expert.train_and_evaluate(expert_config(data_dir), workdir)
  assert_trees_equal(jax.device_get(again), state)
  assert untimed(workdir) == before


def test_expert_loss_falls_on_one_batch(data_dir):
  """The step optimises: 30 steps on one batch at a high rate."""
  config = expert_config(data_dir)
  config.optimizer.learning_rate = 3e-3
  mesh = sharding.make_mesh(4)
  split = dataset.Split(dataset.builder_dir(data_dir, 24), "train")
  batch = next(
    input_pipeline.train_batches(
      split, train_expert.window_spec(config), "expert", config
    )(0)
  )
  state = sharding.put_replicated(
    mesh, train_expert.create_state(config, jax.random.key(0))
  )
  step = sharding.jit_train_step(train_expert.make_train_step(config), mesh)
  losses = []
  for _ in range(30):
    state, result = step(state, sharding.global_batch(mesh, batch), {})
    losses.append(float(result["loss"]))
  assert np.mean(losses[-3:]) < 0.5 * losses[0]
