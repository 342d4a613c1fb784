"""What is refused, and that what is read is what was saved."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import STEPS, assert_trees_equal, expert_config, gan_config

from launch import convert_checkpoint
from w2l_jax import (
  checkpoint_store,
  checkpoints,
  dataset,
  inference,
  sharding,
  train_expert,
  train_generator,
)
from w2l_jax.checkpoint_store import CheckpointError, CheckpointStore
from w2l_jax.train_state import ExpertTrainState, NetworkState, adam_of


def test_variables_are_the_states(expert_run, gan_run):
  """Workdir and step folder; params and statistics, nothing else."""
  workdir, state = expert_run
  for path in (workdir, os.path.join(workdir, "checkpoints", "4")):
    variables, config = train_expert.load_frozen(path)
    assert_trees_equal(jax.device_get(variables), state.expert.variables)
    assert config["stage"] == "expert"
  workdir, state = gan_run
  variables, config = inference.load_generator(workdir)
  assert_trees_equal(jax.device_get(variables), state.generator.variables)
  # The checkpoint says how its faces were cut and by which expert it learnt.
  assert config["preparation"]["crop_rule"] == "box"
  assert config["preparation"]["detector"] == "mtcnn"
  assert config["expert"]["stage"] == "expert"


def test_a_step_folder_alone_is_enough(expert_run, tmp_path):
  workdir, state = expert_run
  copy = tmp_path / "elsewhere" / "4"
  shutil.copytree(os.path.join(workdir, "checkpoints", "4"), copy)
  variables, _ = train_expert.load_frozen(str(copy))
  assert_trees_equal(jax.device_get(variables), state.expert.variables)


def test_a_step_folder_may_be_renamed(expert_run, tmp_path):
  """Then its step is unknown, and it is a workdir of its own."""
  copy = tmp_path / "our-expert"
  shutil.copytree(os.path.join(expert_run[0], "checkpoints", "4"), copy)
  assert checkpoints.describe(str(copy))[:2] == ("expert", None)
  assert checkpoints.workdir_of(str(copy)) == str(copy)
  train_expert.load_frozen(str(copy))


def test_a_run_that_saved_nothing_may_change_its_config(tmp_path):
  """What an error asks to change can be changed in the same workdir."""
  for rate in (1.0, 2.0):
    checkpoints.claim_workdir(
      str(tmp_path), {"stage": "expert", "optimizer": {"learning_rate": rate}}
    )
    with open(tmp_path / "config.json") as f:
      assert json.load(f)["optimizer"]["learning_rate"] == rate


def test_evaluations_count_only_in_stage_2(tmp_path):
  """There one of them switches the sync loss on."""
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  for stage in ("expert", "generator"):
    config = {"stage": stage, "train": {"eval_every_steps": 5, "keep": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    config["train"] = {"eval_every_steps": 7, "keep": 2}
    if stage == "expert":
      checkpoints.claim_workdir(str(tmp_path), config)
      continue
    with pytest.raises(CheckpointError, match="eval_every_steps: 5 there, 7"):
      checkpoints.claim_workdir(str(tmp_path), config)


def test_older_steps_are_kept_and_readable(expert_run):
  workdir, _ = expert_run
  steps = sorted(os.listdir(os.path.join(workdir, "checkpoints")), key=int)
  assert steps == ["2", "3", "4"]
  assert checkpoints.describe(os.path.join(workdir, "checkpoints", "3"))[1] == 3


def test_wrong_network(expert_run, gan_run):
  with pytest.raises(CheckpointError, match="expected one of 'generator'"):
    inference.load_generator(expert_run[0])
  with pytest.raises(CheckpointError, match="expected one of 'expert'"):
    train_expert.load_frozen(gan_run[0])


def test_no_checkpoint(tmp_path):
  with pytest.raises(CheckpointError, match="no such checkpoint"):
    train_expert.load_frozen(str(tmp_path / "nowhere"))
  with pytest.raises(CheckpointError, match="holds no checkpoint"):
    train_expert.load_frozen(str(tmp_path))
  file = tmp_path / "weights.bin"
  file.write_bytes(b"x")
  with pytest.raises(CheckpointError, match="a file; expected a workdir"):
    train_expert.load_frozen(str(file))


def test_damaged_checkpoint(expert_run, tmp_path):
  """The arrays are cut off: one sentence that names the folder."""
  copy = tmp_path / "4"
  shutil.copytree(os.path.join(expert_run[0], "checkpoints", "4"), copy)
  files = [
    os.path.join(parent, name)
    for parent, _, names in os.walk(copy / "state")
    for name in names
  ]
  for file in files:
    os.truncate(file, os.path.getsize(file) // 2)
  with pytest.raises(CheckpointError, match=str(copy)):
    train_expert.load_frozen(str(copy))


def test_workdir_of_another_config(expert_run, data_dir):
  """The fields that differ are listed; free fields may differ."""
  workdir, _ = expert_run
  config = expert_config(data_dir)
  config.optimizer.learning_rate = 0.5
  config.windows.min_negative_distance = 2
  config.train.log_every_steps = 7
  with pytest.raises(CheckpointError) as error:
    train_expert.train_and_evaluate(config, workdir)
  message = str(error.value)
  assert workdir in message
  assert "optimizer.learning_rate: 0.001 there, 0.5 here" in message
  assert "windows.min_negative_distance: 3 there, 2 here" in message
  assert "log_every_steps" not in message
  with open(os.path.join(workdir, "config.json")) as f:
    assert json.load(f)["optimizer"]["learning_rate"] == 0.001


def test_another_data_set(expert_run, data_dir, tmp_path):
  """A copy elsewhere will do; one that was prepared anew is noticed."""
  workdir, copy = str(tmp_path / "run"), str(tmp_path / "data")
  shutil.copytree(expert_run[0], workdir)
  shutil.copytree(data_dir, copy, copy_function=shutil.copyfile)
  state = train_expert.train_and_evaluate(expert_config(copy), workdir)
  assert int(state.step) == STEPS
  index = dataset.index_file(dataset.builder_dir(copy, 24), "val")
  with np.load(index) as arrays:
    arrays = dict(arrays)
  arrays["column_means"][0] += 1.0
  np.savez(index, **arrays)
  with pytest.raises(CheckpointError, match="not the data set that the run be"):
    train_expert.train_and_evaluate(expert_config(copy), workdir)


def test_a_workdir_of_the_other_stage(expert_run, data_dir):
  with pytest.raises(CheckpointError, match="stage: 'expert' there"):
    train_generator.train_and_evaluate(
      gan_config(data_dir, expert_run[0]), expert_run[0]
    )


def test_experts_of_other_faces_are_refused(expert_run, data_dir):
  _, expert = train_expert.load_frozen(expert_run[0])
  config = {
    **checkpoints.to_plain(gan_config(data_dir, expert_run[0])),
    "preparation": dict(expert["preparation"]),
  }
  train_generator.check_expert(config, expert, "an/expert")
  config["preparation"]["detector"] = "haar"
  with pytest.raises(
    ValueError, match="an/expert: .*detector 'mtcnn', the generator has 'haar'"
  ):
    train_generator.check_expert(config, expert, "an/expert")
  config["image_size"] = 96
  with pytest.raises(ValueError, match="image_size 24, the generator has 96"):
    train_generator.check_expert(config, expert, "an/expert")


def test_tree_restored_on_another_structure(expert_run):
  """A checkpoint of another width does not fit, and says so."""
  workdir, _ = expert_run
  config = checkpoints.load_config(workdir, "expert")
  config["width"] = 0.25
  abstract = jax.eval_shape(
    train_expert.make_model(config).init,
    jax.random.key(0),
    *train_expert.model_inputs(config),
  )
  with pytest.raises(CheckpointError, match="shape .*, expected"):
    checkpoints.load_variables(workdir, "expert", abstract)


def test_training_starts_from_a_checkpoint(
  expert_run, gan_run, data_dir, tmp_path
):
  """Weights alone, or with Adam's state; every network."""
  workdir, last = expert_run
  config = expert_config(data_dir, num_steps=0)
  config.init_checkpoint = workdir
  for optimizer in (False, True):
    config.init_optimizer = optimizer
    state = train_expert.create_state(config, jax.random.key(7))
    state = checkpoints.start_from(state.expert, workdir, "expert", optimizer)
    assert_trees_equal(state.variables, last.expert.variables)
    expected = last.expert.opt_state if optimizer else None
    adam = adam_of(state.opt_state)
    assert adam.count == (STEPS if optimizer else 0)
    if optimizer:
      assert_trees_equal(adam, adam_of(expected))
  # And by the command's own function.
  state = train_expert.train_and_evaluate(config, str(tmp_path / "expert"))
  assert_trees_equal(state.expert.variables, last.expert.variables)

  workdir, last = gan_run
  config = gan_config(data_dir, expert_run[0])
  config.init_checkpoint = config.init_discriminator = workdir
  config.init_optimizer = True
  frozen, _ = train_expert.load_frozen(expert_run[0])
  state = train_generator.initial_state(config, False, frozen)
  for network in ("generator", "discriminator"):
    started, expected = getattr(state, network), getattr(last, network)
    assert_trees_equal(started.variables, expected.variables)
    assert_trees_equal(adam_of(started.opt_state), adam_of(expected.opt_state))
  # A restart does not need the file any more.
  config.init_checkpoint = config.init_discriminator = str(tmp_path / "gone")
  train_generator.initial_state(config, True, frozen)
  with pytest.raises(CheckpointError, match="gone: no such checkpoint"):
    train_generator.initial_state(config, False, frozen)
  config.loss.adversarial_weight = 0.0
  with pytest.raises(ValueError, match="but there is no discriminator"):
    train_generator.initial_state(config, True, frozen)


def test_starting_with_an_optimizer_that_is_not_there(
  expert_run, data_dir, tmp_path
):
  path = str(tmp_path / "x.safetensors")
  convert_checkpoint.convert("sync_expert", expert_run[0], path)
  state = train_expert.create_state(expert_config(data_dir), jax.random.key(7))
  with pytest.raises(CheckpointError, match="weights without Adam's state"):
    checkpoints.start_from(state.expert, path, "expert", optimizer=True)
  started = checkpoints.start_from(state.expert, path, "expert", False)
  assert_trees_equal(started.variables, expert_run[1].expert.variables)


def test_a_network_that_a_checkpoint_does_not_hold(expert_run, tmp_path):
  """A run without GAN has no discriminator; a converted one has one network."""
  weights = str(tmp_path / "expert.safetensors")
  workdir = str(tmp_path / "converted")
  convert_checkpoint.convert("sync_expert", expert_run[0], weights)
  convert_checkpoint.convert("sync_expert", weights, workdir)
  abstract = expert_run[1].expert.variables
  # From a file without Adam's state there is none.
  assert checkpoints.load_adam(workdir, "expert", abstract) is None
  where, _ = checkpoints._find(workdir)
  with pytest.raises(CheckpointError, match="holds no generator; .* expert"):
    checkpoints._restore(where, "generator", abstract)


# --- The store ---


@pytest.fixture
def store(tmp_path):
  """A store of three checkpoints, whose weights are their step."""
  found = CheckpointStore(str(tmp_path), 3, ("eval/loss", "min"))
  for step in (1, 2, 3):
    found.save(step, state_at(step), {"stage": "expert"})
  found.close()
  return tmp_path


def state_at(step):
  weights = np.random.default_rng(step).standard_normal((64, 64))
  return ExpertTrainState(
    step=jnp.int32(step),
    expert=NetworkState(
      params={"kernel": jnp.asarray(weights, jnp.float32)},
      batch_stats={"mean": jnp.full(8, step, jnp.float32)},
      opt_state={},
    ),
  )


def files_of(folder):
  return [
    os.path.join(parent, name)
    for parent, _, names in os.walk(folder)
    for name in names
  ]


def largest(folder):
  return max(files_of(folder), key=os.path.getsize)


def truncate(folder):
  os.truncate(largest(folder), os.path.getsize(largest(folder)) // 2)


def delete(folder):
  os.remove(largest(folder))


def flip(folder):
  """One bit of the weights, where nothing but a checksum can tell."""
  with open(largest(folder), "r+b") as f:
    data = bytearray(f.read())
    data[len(data) // 2] ^= 4
    f.seek(0)
    f.write(data)


def lose_the_checksums(folder):
  shutil.rmtree(folder.parent / "checksums")


@pytest.mark.parametrize("damage", [truncate, delete, flip, lose_the_checksums])
def test_a_damaged_newest_checkpoint(store, damage, caplog):
  """The one before it takes its place; the damaged one is kept, and told."""
  damage(store / "checkpoints" / "3" / "state")
  again = CheckpointStore(str(store), 3)
  everywhere = sharding.replicated(sharding.make_mesh(4))
  with caplog.at_level("WARNING"):
    state = again.restore(state_at(0), everywhere)
  assert_trees_equal(jax.device_get(state), state_at(2))
  assert str(store / "checkpoints" / "3") in caplog.text
  assert "damaged" in caplog.text and "from step 2" in caplog.text
  assert files_of(store / "damaged" / "3")
  # Its number is free again.
  again.save(3, state_at(3), {"stage": "expert"})
  again.close()
  newest = CheckpointStore(str(store), 3)
  assert_trees_equal(
    jax.device_get(newest.restore(state_at(0), everywhere)), state_at(3)
  )
  newest.close()


@pytest.mark.parametrize("name", ["metrics/metrics", "config/metadata"])
def test_a_damaged_note_beside_the_weights(tmp_path, name, caplog):
  """Orbax reads all steps' metrics before it opens any."""
  best = ("eval/loss", "min")
  found = CheckpointStore(str(tmp_path), 3, best)
  for step in (1, 2, 3):
    found.save(step, state_at(step), {"stage": "expert"}, {"eval/loss": 1.0})
  found.close()
  os.truncate(tmp_path / "checkpoints" / "3" / name, 1)
  with caplog.at_level("WARNING"):
    again = CheckpointStore(str(tmp_path), 3, best)
  assert f"{name} is no JSON" in caplog.text
  assert again.latest_step() == 2
  assert files_of(tmp_path / "damaged" / "3")
  again.close()


def test_another_best_metric_later(tmp_path):
  found = CheckpointStore(str(tmp_path), 1, ("eval/loss", "min"))
  found.save(1, state_at(1), {}, {"eval/loss": 1.0})
  found.close()
  found = CheckpointStore(str(tmp_path), 1, ("eval/accuracy", "max"))
  found.save(2, state_at(2), {}, {"eval/accuracy": 0.5})
  found.save(3, state_at(3), {}, {"eval/accuracy": float("nan")})
  found.save(4, state_at(4), {}, {"eval/accuracy": 0.4})
  found.close()
  steps = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert steps == [2, 4]


def test_what_one_process_cannot_read_none_takes(store, monkeypatch):
  """Here the other process is played: it fails at step 3."""
  answers = iter([False, True])
  monkeypatch.setattr(
    checkpoint_store, "all_agree", lambda yes: yes and next(answers)
  )
  again = CheckpointStore(str(store), 3)
  restored = again.restore(
    state_at(0), sharding.replicated(sharding.make_mesh(4))
  )
  assert int(restored.step) == 2 and again.latest_step() == 2
  assert files_of(store / "damaged" / "3")
  again.close()


def test_all_checkpoints_damaged(store):
  for step in (1, 2, 3):
    truncate(store / "checkpoints" / str(step) / "state")
  again = CheckpointStore(str(store), 3)
  everywhere = sharding.replicated(sharding.make_mesh(4))
  with pytest.raises(CheckpointError, match="nor can any before it"):
    again.restore(state_at(0), everywhere)
  assert not (store / "damaged").exists()
  again.close()


@pytest.mark.parametrize(("mode", "best"), [("min", 2), ("max", 4)])
def test_the_best_is_kept(tmp_path, mode, best):
  """Beside the newest, by the named metric; WORKDIR/best means it."""
  config = {
    "stage": "expert",
    "train": {"best_metric": "eval/loss", "best_mode": mode},
  }
  store = CheckpointStore(str(tmp_path), 2, ("eval/loss", mode))
  losses = {1: 5.0, 2: 1.0, 3: None, 4: 7.0, 5: 4.0, 6: None, 7: 6.0}
  for step, loss in losses.items():
    metrics = None if loss is None else {"eval/loss": np.float32(loss)}
    store.save(step, state_at(step), config, metrics)
  store.close()
  # Also by a run that goes on.
  store = CheckpointStore(str(tmp_path), 2, ("eval/loss", mode))
  store.save(8, state_at(8), config)
  store.close()
  steps = sorted(int(name) for name in os.listdir(tmp_path / "checkpoints"))
  assert steps == [best, 7, 8]
  assert checkpoints.describe(str(tmp_path))[1] == 8
  assert checkpoints.describe(str(tmp_path / "best"))[1] == best
  with pytest.raises(ValueError, match="best_mode is 'least'"):
    CheckpointStore(str(tmp_path), 2, ("eval/loss", "least"))


def test_the_best_after_another_best_metric(tmp_path):
  """Values of two metrics are not compared."""
  figures = {
    1: {"eval/loss": 0.5, "eval/accuracy": 0.6},
    2: {"eval/loss": 9.0, "eval/accuracy": 0.8},
    3: {"eval/accuracy": 0.7},
  }
  for step, name, mode in (
    (1, "eval/loss", "min"),
    (2, "eval/loss", "min"),
    (3, "eval/accuracy", "max"),
  ):
    config = {
      "stage": "expert",
      "train": {"best_metric": name, "best_mode": mode},
    }
    store = CheckpointStore(str(tmp_path), 3, (name, mode))
    store.save(step, state_at(step), config, figures[step])
    store.close()
    best = checkpoints.describe(str(tmp_path / "best"))[1]
    assert best == {1: 1, 2: 1, 3: 2}[step]


def test_no_best_yet(store):
  with pytest.raises(CheckpointError, match="there was evaluated"):
    checkpoints.describe(str(store / "best"))


def test_an_unknown_best_metric_is_told_once(tmp_path, caplog):
  """What evaluation gives is known only when it has been made."""
  store = CheckpointStore(str(tmp_path), 2, ("eval/los", "min"))
  with caplog.at_level("WARNING"):
    for step in (1, 2):
      store.save(step, state_at(step), {"stage": "expert"}, {"eval/loss": 1.0})
    store.close()
  (said,) = [
    r.getMessage() for r in caplog.records if "eval/los'" in r.msg % r.args
  ]
  assert "Evaluation gives eval/loss" in said
  assert checkpoints.is_begun(str(tmp_path))
