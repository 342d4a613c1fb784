"""Every config loads at every size and says what the original does."""

import dataclasses
import importlib
import pathlib

import pytest

from configs import common
from w2l_jax import checkpoints, evaluate_sync, train_expert, train_generator

CONFIGS = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parent.parent / "configs").glob("*.py")
  if path.stem not in ("__init__", "common", "evaluation")
)


def get(name, size=""):
  return importlib.import_module(f"configs.{name}").get_config(size)


def test_all_are_here():
  assert CONFIGS == [
    "expert_grid",
    "expert_grid_contrastive",
    "expert_lrs2",
    "expert_rendered",
    "gan_grid",
    "gan_grid_improved",
    "gan_lrs2",
    "generator_grid",
    "generator_grid_improved",
    "generator_lrs2",
    "generator_rendered",
  ]


@pytest.mark.parametrize("size", common.SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_loads(name, size):
  config = get(name, size)
  assert config.stage == (
    "expert" if name.startswith("expert") else "generator"
  )
  train_expert.window_spec(config)
  checkpoints.to_plain(config)  # JSON can hold it.


def test_evaluation():
  """It says all of the protocol; the published one differs in few fields."""
  fields = [f.name for f in dataclasses.fields(evaluate_sync.Protocol)]
  ours, theirs = get("evaluation"), get("evaluation", "faithful")
  evaluate_sync.Protocol(**{name: ours[name] for name in fields})
  differing = {k for k in ours if ours[k] != theirs[k]}
  assert differing == {"faithful", "min_frames"}
  assert ours.max_shift == theirs.max_shift == 15
  with pytest.raises(ValueError, match="expected 'faithful'"):
    get("evaluation", "faithfull")


def test_unknown_size():
  with pytest.raises(ValueError, match="expected one of"):
    get("expert_lrs2", "huge")


def test_lrs2_is_the_originals():
  expert, generator, gan = (
    get(f"{kind}_lrs2") for kind in ("expert", "generator", "gan")
  )
  for config in (expert, generator, gan):
    assert config.image_size == 96 and config.width == 1
    assert config.optimizer.learning_rate == 1e-4
    assert config.optimizer.eps == 1e-8
    assert config.optimizer.b2 == 0.999
    assert config.windows.frames == 5 and config.windows.mel_columns == 16
    assert config.windows.frame_mel_offset == -1
    assert config.windows.min_negative_distance == 1
    assert config.windows.min_reference_distance == 1
    assert not config.windows.speech_only
  assert expert.data.batch_size == 64 and expert.optimizer.b1 == 0.9
  assert expert.train.eval_every_steps == 10_000
  for config in (generator, gan):
    assert config.data.batch_size == 16
    assert config.train.eval_every_steps == 3_000
    assert config.expert_batch_norm == "batch"
    assert config.loss.sync_on_below == 0.75
    assert config.loss.sync_weight_initial == 0
    assert config.windows.inference_mel_offset == 0
  assert generator.optimizer.b1 == 0.9
  assert generator.loss.sync_weight == 0.01
  assert generator.loss.adversarial_weight == 0
  assert gan.optimizer.b1 == gan.discriminator_optimizer.b1 == 0.5
  assert gan.discriminator_optimizer.learning_rate == 1e-4
  assert gan.loss.sync_weight == 0.03
  assert gan.loss.adversarial_weight == 0.07


def test_unknown_batch_norm_mode_is_refused():
  preparation = {"detector": "a", "crop_rule": "b", "audio_padding": "c"}
  config, expert = (
    {**checkpoints.to_plain(get(name, "tiny")), "preparation": preparation}
    for name in ("gan_grid", "expert_grid")
  )
  train_generator.check_expert(config, expert, "runs/expert")
  config["expert_batch_norm"] = "runing"
  with pytest.raises(ValueError, match="'runing', expected 'running' or"):
    train_generator.check_expert(config, expert, "runs/expert")


@pytest.mark.parametrize("name", ["expert_grid", "gan_grid"])
def test_schedules_follow_the_number_of_steps(name):
  """Another --config.train.num_steps moves what is tied to it."""
  config = get(name, "small")
  config.train.num_steps = 100
  assert checkpoints.to_plain(config)["optimizer"]["decay_steps"] == 100
  if name == "gan_grid":
    assert checkpoints.to_plain(config)["loss"]["adversarial_from_step"] == 75
