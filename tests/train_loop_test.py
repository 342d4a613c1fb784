"""The loop that both stages share."""

import itertools
import json
import os
import subprocess
import sys
import textwrap

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from conftest import (
  expert_config,
)

from w2l_jax import (
  checkpoints,
  metrics,
  sharding,
  train_expert,
  train_loop,
)
from w2l_jax.checkpoint_store import CheckpointStore


@flax.struct.dataclass
class Counter:
  """The least that a run can train."""

  step: jax.Array


def test_phases_begin_where_they_should(tmp_path):
  """Also in a run that was stopped before or at the border."""
  mesh = sharding.make_mesh(1)

  def phase(number):
    return lambda state, batch, frozen: (
      Counter(state.step + 1),
      {"phase": jnp.float32(number)},
    )

  for last in (1, 2, 4):
    schedule = ml_collections.ConfigDict(
      {
        "num_steps": last,
        "log_every_steps": 1,
        "eval_every_steps": 9,
        "save_every_steps": 9,
        "keep": 1,
        "best_metric": "eval/loss",
        "best_mode": "min",
      }
    )
    state = train_loop.run(
      workdir=str(tmp_path),
      config={
        "stage": "expert",
        "data": {"batch_size": 1},
        "train": {"microbatches": 1},
      },
      schedule=schedule,
      mesh=mesh,
      state=sharding.put_replicated(mesh, Counter(jnp.int32(0))),
      frozen={},
      train_steps={0: phase(0), 2: phase(2)},
      batches=lambda first: itertools.repeat({"x": np.zeros((1, 1))}),
      evaluate=lambda state, frozen, writer: {},
    )
    assert state.step == last
  found = {
    m["step"]: m["train/phase"]
    for m in metrics.read_metrics(str(tmp_path))
    if "train/phase" in m
  }
  assert found == {1: 0, 2: 0, 3: 2, 4: 2}


def test_nan_stops(data_dir, tmp_path):
  """A loss that is not finite stops the run; what was saved is finite.

  What went wrong is kept for whoever looks for the reason.
  """
  config = expert_config(data_dir)
  config.optimizer.learning_rate = float("nan")
  with pytest.raises(train_loop.TrainingError, match="NaN or infinite at step"):
    train_expert.train_and_evaluate(config, str(tmp_path))
  (kept,) = (tmp_path / "post_mortem").iterdir()
  with np.load(kept / "batch_of_process_0.npz") as batch:
    assert batch["frames"].shape == (4, 5, 24, 24, 3)
  assert checkpoints.is_begun(str(kept))
  figures = json.loads((kept / "metrics.json").read_text())
  assert not np.isfinite(figures["param_norm"])
  state = train_expert.create_state(config, jax.random.key(0))
  store = CheckpointStore(str(tmp_path), 3)
  if store.latest_step() is not None:
    restored = store.restore(state, sharding.replicated(sharding.make_mesh(4)))
    assert all(
      np.all(np.isfinite(x)) for x in jax.tree.leaves(restored.expert.params)
    )


DEVICES_SCRIPT = """
import json, sys
from absl import flags
import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from configs import expert_grid, generator_grid
from w2l_jax import train_expert, train_generator, sharding, dataset
from w2l_jax import input_pipeline
flags.FLAGS.mark_as_parsed()
data_dir, expert_dir, out, stage_name, dtype, *counts = sys.argv[1:]
counts = [int(count) for count in counts]
assert jax.device_count() == max(counts)
split = dataset.Split(dataset.builder_dir(data_dir, 24), "train")
def cast(tree):
  return jax.tree.map(
    lambda x: np.asarray(x, dtype) if x.dtype == np.float32 else np.asarray(x),
    tree)
def host(tree):
  return jax.tree.map(
    lambda x: x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    else cast(jax.device_get(x)), tree)
variables, expert = train_expert.load_frozen(expert_dir)
results = []
for stage, get, module in (
  ("expert", expert_grid.get_config, train_expert),
  ("generator", generator_grid.get_config, train_generator),
):
  if stage != stage_name:
    continue
  config = get("tiny")
  config.data.batch_size = 8
  config.optimizer.clip_norm = 0.0
  extra = () if stage == "expert" else (expert,)
  train_step = module.make_train_step(config, *extra)
  first = host(module.create_state(config, jax.random.key(0)))
  batch = next(input_pipeline.train_batches(
    split, train_expert.window_spec(config), stage, config)(0))
  for count in counts:
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",),
                axis_types=(AxisType.Auto,))
    frozen = {"expert": host(variables)} if extra else {}
    state, metrics = sharding.jit_train_step(train_step, mesh)(
      sharding.put_replicated(mesh, first),
      sharding.global_batch(mesh, cast(batch)),
      sharding.put_replicated(mesh, frozen))
    network = state.expert if stage == "expert" else state.generator
    results.append({
      "metrics": {k: float(v) for k, v in metrics.items()},
      "moments": [float(np.sqrt(np.sum(np.square(x)))) for x in
                  jax.tree.leaves(network.opt_state[0].mu)],
      "batch_stats": [float(np.sum(x)) for x in
                      jax.tree.leaves(network.batch_stats)],
    })
json.dump(results, open(out, "w"))
"""


@pytest.mark.parametrize(
  ("stage", "dtype", "counts"),
  [
    ("expert", "float32", (1, 4)),
    pytest.param("expert", "float32", (1, 2, 8), marks=pytest.mark.slow),
    pytest.param("generator", "float32", (1, 2, 4, 8), marks=pytest.mark.slow),
    pytest.param("expert", "float64", (1, 2, 4, 8), marks=pytest.mark.slow),
    pytest.param("generator", "float64", (1, 2, 4, 8), marks=pytest.mark.slow),
  ],
)
def test_any_number_of_devices(
  stage, dtype, counts, data_dir, expert_run, tmp_path
):
  """Losses, gradients and BatchNorm statistics of the same global batch.

  The generator's gradients in float64 alone: few channels multiply float32's
  rounding in them (grad_norm differed by 2e-3, and in float64 by 1e-14).
  """
  script = tmp_path / "devices.py"
  script.write_text(textwrap.dedent(DEVICES_SCRIPT))
  out = tmp_path / "results.json"
  environment = {
    **os.environ,
    "JAX_NUM_CPU_DEVICES": str(max(counts)),
    "JAX_ENABLE_X64": str(dtype == "float64"),
    "PYTHONPATH": os.getcwd(),
  }
  subprocess.run(
    [
      *(sys.executable, script, data_dir, expert_run[0], out, stage, dtype),
      *map(str, counts),
    ],
    env=environment,
    check=True,
    timeout=280,
  )
  one, *others = json.loads(out.read_text())
  for count, other in zip(counts[1:], others, strict=True):
    exact = dtype == "float64"
    with_gradients = exact or stage == "expert"
    furthest = 0.0
    for key, value in one["metrics"].items():
      if with_gradients or key != "grad_norm":
        tolerance = 1e-9 if exact else 2e-4
        assert other["metrics"][key] == pytest.approx(value, rel=tolerance), key
      if key.startswith("loss") and value:
        furthest = max(furthest, abs(other["metrics"][key] / value - 1))
    if with_gradients:
      # Next to nothing is compared absolutely.
      np.testing.assert_allclose(
        other["moments"],
        one["moments"],
        rtol=1e-9 if exact else 5e-3,
        atol=(1e-12 if exact else 1e-4) * max(one["moments"]),
      )
    np.testing.assert_allclose(
      other["batch_stats"],
      one["batch_stats"],
      rtol=1e-9 if exact else 1e-3,
      atol=1e-12 if exact else 1e-4,
    )
    print(f"{stage}, {dtype}, {count} devices: losses differ by {furthest:.0e}")
