"""What goes wrong in Wav2Lip trainings, recognised in their figures.

Pure functions of the last figures of each name in metrics.jsonl: the training
loop calls `diagnose` after every log and evaluation, and it can be called on
any run's figures later.  Non-finite values are train_loop.py's matter: they
stop the run.
"""

import collections
from collections.abc import Callable, Iterable

import numpy as np

# So many values of each name are looked at.
_VALUES = 500
# A discriminator may be at chance for so many steps before it is told of.
_DISCRIMINATOR_STEPS = 1000
# ln 2: the cosine BCE of an expert that says 0.5 to everything.
_CHANCE_BCE = float(np.log(2))
# 2 ln 2: the loss of a discriminator that says 0.5 to everything.
_CHANCE_DISCRIMINATOR = 2 * _CHANCE_BCE


class Recent:
  """The last values of every figure, however often it is written."""

  def __init__(self, lines: Iterable[dict] = ()):
    """Takes lines of metrics.jsonl, in order."""
    self._last = collections.defaultdict(
      lambda: collections.deque(maxlen=_VALUES)
    )
    for line in lines:
      self.add(line)

  def add(self, line: dict) -> None:
    """Takes one more line."""
    for name, value in line.items():
      self._last[name].append((line["step"], value))

  def values(self, name: str) -> list[float]:
    """Returns the last values of a figure, the newest last."""
    return [value for _, value in self._last[name]]

  def steps(self, name: str) -> list[int]:
    """Returns the steps of `values`."""
    return [step for step, _ in self._last[name]]


def _expert_plateau(recent, config) -> str | None:
  """The commonest: LRS2's expert sits at 0.69 for 150 000 steps."""
  if config["stage"] != "expert":
    return None
  accuracies = recent.values("eval/two_way_accuracy")[-3:]
  if len(accuracies) < 3 or max(accuracies) > 0.6:
    return None
  return (
    "the expert is at chance: eval/two_way_accuracy was "
    f"{', '.join(f'{a:.2f}' for a in accuracies)} in the last three "
    "evaluations (0.5 is a coin; cosine BCE then stays near "
    f"{_CHANCE_BCE:.2f}). Usual reasons: clips out of sync, too few clips, "
    "silent windows (config.windows.speech_only=True), patience. "
    "config.loss.kind=contrastive with config.windows.windows_per_clip=16 "
    "leaves it far sooner"
  )


def _embeddings_collapsed(recent, config) -> str | None:
  """All windows have nearly one embedding: nothing can be told apart."""
  # A part of one window has one embedding.
  if config["data"]["batch_size"] < 4 * config["train"]["microbatches"]:
    return None
  for side in ("audio", "face"):
    found = recent.values(f"train/{side}_embedding_mean_norm")[-3:]
    if len(found) == 3 and min(found) > 0.995:
      return (
        f"the {side} embeddings of all windows are nearly the same (the length "
        f"of their mean is {found[-1]:.4f}; 1 is one point): the expert has "
        "collapsed. Start again in a new --workdir with a smaller "
        "config.optimizer.learning_rate or another config.seed"
      )
  return None


def _sync_weight_never_on(recent, config) -> str | None:
  if config["stage"] != "generator":
    return None
  loss = config["loss"]
  found = recent.values("eval/loss_sync")
  weights = recent.values("train/sync_weight")
  if len(found) < 5 or not weights or weights[-1] or not loss["sync_weight"]:
    return None
  # Before sync_from_step it rests on purpose.
  if recent.steps("train/sync_weight")[-1] <= loss["sync_from_step"]:
    return None
  threshold = loss["sync_on_below"]
  if min(found[-5:]) < threshold:
    return None
  return (
    "the sync loss is still off: it is switched on by an evaluation with "
    f"eval/loss_sync below config.loss.sync_on_below = {threshold}; the last "
    f"five were {', '.join(f'{v:.2f}' for v in found[-5:])}, real video has "
    f"{recent.values('eval/loss_sync_real')[-1]:.2f}. Go on if it falls; "
    "else start in a new --workdir with a higher threshold or with "
    "config.loss.sync_weight_initial above 0"
  )


def _discriminator(recent, config) -> str | None:
  del config
  name = "train/loss_discriminator"
  found = recent.values(name)[-5:]
  if len(found) < 5:
    return None
  if max(found) < 0.05:
    return (
      f"the discriminator has won: its loss is {found[-1]:.3f} (at chance "
      f"{_CHANCE_DISCRIMINATOR:.2f}), and its gradient teaches the generator "
      "noise. Lower config.discriminator_optimizer.learning_rate or "
      "config.loss.adversarial_weight"
    )
  since = None
  for step, value in zip(
    reversed(recent.steps(name)), reversed(recent.values(name)), strict=True
  ):
    if abs(value - _CHANCE_DISCRIMINATOR) >= 0.002:
      break
    since = step
  if since is None or recent.steps(name)[-1] - since < _DISCRIMINATOR_STEPS:
    return None
  return (
    f"the discriminator has learnt nothing since step {since}, or has "
    f"collapsed: its loss stays at {_CHANCE_DISCRIMINATOR:.3f}, it says the "
    "same of every picture. Use config.discriminator_init='he' or raise "
    "config.discriminator_optimizer.learning_rate"
  )


def _expert_fooled(recent, config) -> str | None:
  if config["stage"] != "generator":
    return None
  ours, real = (
    recent.values(f"eval/loss_sync{suffix}")[-3:] for suffix in ("", "_real")
  )
  if len(ours) < 3 or any(a > 0.5 * b for a, b in zip(ours, real, strict=True)):
    return None
  return (
    f"the generator fools the expert: eval/loss_sync is {ours[-1]:.3f} where "
    f"real video has {real[-1]:.3f}. Look at the samples; lower "
    "config.loss.sync_weight or train the expert on more clips"
  )


def _slow_loader(recent, config) -> str | None:
  del config
  found = recent.values("time/waiting_for_data")[-3:]
  if len(found) < 3 or min(found) < 0.2:
    return None
  return (
    f"the loader is slower than the device: {100 * found[-1]:.0f} % of the "
    "time is spent waiting for data. Raise config.data.cache_gb, so that "
    "decoded pictures are kept, config.data.num_threads or "
    "config.data.num_workers; or set config.data.on_device where the set fits"
  )


_RULES: dict[str, Callable] = {
  "expert plateau": _expert_plateau,
  "embeddings collapsed": _embeddings_collapsed,
  "sync weight never on": _sync_weight_never_on,
  "discriminator": _discriminator,
  "expert fooled": _expert_fooled,
  "slow loader": _slow_loader,
}


def diagnose(recent: Recent, config: dict) -> dict[str, str]:
  """Returns {name: what is wrong now, and what helps}.

  Args:
    recent: the figures so far.
    config: of the run.
  """
  found = {name: rule(recent, config) for name, rule in _RULES.items()}
  return {name: text for name, text in found.items() if text}
