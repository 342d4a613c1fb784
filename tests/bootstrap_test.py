"""Train, filter, train again: in order, and gone on with."""

import os
import types

import pytest
from conftest import expert_config

from data_prep import bootstrap, sync_filter, synced_set
from w2l_jax import checkpoints, train_expert, train_loop


@pytest.fixture
def calls(monkeypatch):
  """What is called in place of training and filtering."""
  made = []

  def train(config, workdir):
    made.append(("train", config.data.dir, workdir))
    return types.SimpleNamespace(step=config.train.num_steps)

  def filter_set(data_dir, output, checkpoint, thresholds):
    made.append(("filter", data_dir, output, checkpoint))
    assert thresholds == sync_filter.Thresholds(max_mismatched=0.1)
    report = {"records": [], "checkpoint": checkpoint}
    os.makedirs(output)
    synced_set.write_json(f"{output}/{synced_set.REPORT_FILE}", report)
    return report

  monkeypatch.setattr(train_expert, "train_and_evaluate", train)
  monkeypatch.setattr(synced_set, "filter_set", filter_set)
  monkeypatch.setattr(checkpoints, "step_folder", lambda path: path)
  return made


def test_rounds(calls, tmp_path):
  workdir = str(tmp_path)
  bootstrap.run(expert_config("given"), workdir, 2, 0.1)
  assert calls == [
    ("train", "given", f"{workdir}/expert_0"),
    ("filter", "given", f"{workdir}/set_1", f"{workdir}/expert_0"),
    ("train", f"{workdir}/set_1", f"{workdir}/expert_1"),
    ("filter", "given", f"{workdir}/set_2", f"{workdir}/expert_1"),
    ("train", f"{workdir}/set_2", f"{workdir}/expert_2"),
  ]
  calls.clear()
  bootstrap.run(expert_config("given"), workdir, 2, 0.1)
  # Trainings go on by themselves; sets that are there stay.
  assert [call[0] for call in calls] == ["train"] * 3


def test_what_was_stopped_filters_nothing(calls, tmp_path, monkeypatch):
  def train(config, workdir):
    return types.SimpleNamespace(step=1)

  monkeypatch.setattr(train_expert, "train_and_evaluate", train)
  with pytest.raises(train_loop.TrainingError, match="stopped at step 1"):
    bootstrap.run(expert_config("given"), str(tmp_path), 1, 0.1)
  assert not calls


@pytest.mark.slow
def test_on_a_set(data_dir, tmp_path, monkeypatch):
  """With tiny networks that know nothing, all of it is kept."""
  given = sync_filter.Thresholds(min_confidence=-1.0, max_offset=15)
  monkeypatch.setattr(sync_filter, "Thresholds", lambda **_: given)
  report = bootstrap.run(expert_config(data_dir), str(tmp_path), 1, 0.1)
  assert len(report["records"]) == 6
  assert checkpoints.step_of(str(tmp_path / "expert_1")) == 4
