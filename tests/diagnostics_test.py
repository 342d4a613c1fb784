"""What goes wrong is recognised, and what goes well is left in peace."""

import pytest

from w2l_jax import diagnostics

EXPERT = {
  "stage": "expert",
  "data": {"batch_size": 64},
  "train": {"microbatches": 1},
}
GENERATOR = {
  **EXPERT,
  "stage": "generator",
  "loss": {"sync_weight": 0.03, "sync_on_below": 0.75, "sync_from_step": 0},
}


def diagnose(lines, config):
  return diagnostics.diagnose(diagnostics.Recent(lines), config)


def repeated(count, every=1, **metrics):
  return [
    {"step": every * i, **{k.replace("__", "/"): v for k, v in metrics.items()}}
    for i in range(count)
  ]


BAD = {
  "expert plateau": (EXPERT, repeated(3, eval__two_way_accuracy=0.52)),
  "embeddings collapsed": (
    EXPERT,
    repeated(3, train__face_embedding_mean_norm=0.9999),
  ),
  "sync weight never on": (
    GENERATOR,
    repeated(
      5, eval__loss_sync=4.0, eval__loss_sync_real=0.4, train__sync_weight=0.0
    ),
  ),
  "discriminator": (GENERATOR, repeated(5, train__loss_discriminator=0.01)),
  "expert fooled": (
    GENERATOR,
    repeated(3, eval__loss_sync=0.1, eval__loss_sync_real=0.4),
  ),
  "slow loader": (GENERATOR, repeated(3, time__waiting_for_data=0.6)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_goes_wrong_is_named(name):
  config, lines = BAD[name]
  found = diagnose(lines, config)
  assert list(found) == [name]
  assert "config." in found[name]  # What helps.
  # One bad evaluation is no pattern.
  assert diagnose(lines[:1], config) == {}


def test_a_collapsed_discriminator_is_told_from_one_that_has_won():
  lines = repeated(41, every=25, train__loss_discriminator=1.3863)
  assert "collapsed" in diagnose(lines, GENERATOR)["discriminator"]
  # As slow starts are no collapse, nor is what happened long ago.
  assert diagnose(lines[:-1], GENERATOR) == {}
  assert diagnose([{**lines[0], "step": 1}, *lines[1:]], GENERATOR) == {}
  assert diagnose(repeated(5, train__loss_discriminator=1.1), GENERATOR) == {}


def test_rare_evaluations_are_remembered():
  """However many lines of training are between them."""
  lines = []
  for evaluation in repeated(3, eval__two_way_accuracy=0.5):
    lines += [evaluation, *repeated(3000, train__loss=0.7)]
  assert list(diagnose(lines, EXPERT)) == ["expert plateau"]


def test_parts_of_one_window_have_one_embedding():
  lines = BAD["embeddings collapsed"][1]
  config = {**EXPERT, "train": {"microbatches": 64}}
  assert diagnose(lines, config) == {}


def test_what_has_passed_is_not_told():
  bad = repeated(3, eval__two_way_accuracy=0.5)
  good = repeated(1, eval__two_way_accuracy=0.8)
  assert diagnose(bad + good, EXPERT) == {}
  off = BAD["sync weight never on"][1]
  on = [*off, {"step": 9, "train/sync_weight": 0.03}]
  assert diagnose(on, GENERATOR) == {}
  later = {**GENERATOR["loss"], "sync_from_step": 100}
  assert diagnose(off, {**GENERATOR, "loss": later}) == {}
  assert diagnose([], EXPERT) == diagnose([], GENERATOR) == {}
