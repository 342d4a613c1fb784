r"""Converts networks between PyTorch, safetensors and our workdirs.

  python -m launch.convert_checkpoint --network=generator \
    --input=wav2lip_gan.pth --output=wav2lip_gan.safetensors
  python -m launch.convert_checkpoint --network=generator \
    --input=runs/gan --output=ours.pth

The suffix says what a file is: .pth and .pt are PyTorch's (reading them needs
no torch, writing does), .safetensors carries its config with it, but no paths
(--bfloat16: in half the size); an --output without one becomes a workdir that
launch.evaluate and launch.lipsync take.
Adam's state goes along between PyTorch and workdirs; .safetensors has none.
"""

import os
import sys

import jax
import ml_dtypes
import numpy as np
from absl import app, flags, logging

from configs import expert_lrs2, gan_lrs2
from w2l_jax import (
  checkpoints,
  inference,
  torch_checkpoint,
  train_expert,
  train_generator,
  weight_files,
)
from w2l_jax.checkpoint_store import CheckpointStore
from w2l_jax.train_state import make_optimizer, with_adam

# PyTorch's name: (ours, its module, its inputs).
_NETWORKS = {
  "sync_expert": ("expert", train_expert.make_model, train_expert.model_inputs),
  "generator": ("generator", inference.make_model, inference.model_inputs),
  "quality_discriminator": (
    "discriminator",
    train_generator.make_discriminator,
    train_generator.discriminator_inputs,
  ),
}
_NETWORK = flags.DEFINE_enum(
  "network", None, list(_NETWORKS), "Which network.", required=True
)
_INPUT = flags.DEFINE_string(
  "input", None, "Workdir, step folder, or file of weights.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "File of weights, or a new workdir.", required=True
)
_EMA = flags.DEFINE_bool(
  "ema", False, "The moving average of the params, without Adam's state."
)
_BFLOAT16 = flags.DEFINE_bool(
  "bfloat16", False, "Half the size; for .safetensors."
)


def _full_config(config: dict, stage: str) -> dict:
  """Adds what a workdir's config has and a single file's need not."""
  original = expert_lrs2 if stage == "expert" else gan_lrs2
  return {**checkpoints.to_plain(original.get_config()), **config}


# Where things lay on the machine that trained.
_PATHS = ("dir", "expert_checkpoint", "init_checkpoint", "init_discriminator")


def _without_paths(config: dict) -> dict:
  """Returns a config that can be handed on with the weights."""
  return {
    key: _without_paths(value)
    if isinstance(value, dict)
    else (None if key in _PATHS else value)
    for key, value in config.items()
  }


def convert(
  network: str,
  source: str,
  target: str,
  ema: bool = False,
  bfloat16: bool = False,
) -> None:
  """Converts one network; see the module's docstring.

  Args:
    network: of _NETWORKS.
    source, target: workdirs or files.
    ema: whether to take the moving average of the params.
    bfloat16: whether a .safetensors keeps half of each number's bits; reading
      it gives float32 again, rounded.

  Raises:
    CheckpointError, TorchCheckpointError: naming the file.
  """
  name, make_model, model_inputs = _NETWORKS[network]
  stage = checkpoints.STAGES[name]
  is_torch = target.endswith((".pth", ".pt"))
  if bfloat16 and not target.endswith(".safetensors"):
    raise checkpoints.CheckpointError(
      f"{target}: only .safetensors can be written in bfloat16"
    )
  beside = f"{os.path.splitext(target)[0]}.json"  # Its config.
  for path in (target, beside):
    if os.path.exists(path) and (is_torch or path == target):
      raise checkpoints.CheckpointError(
        f"{path}: exists already; give another --output"
      )
  config = checkpoints.load_config(source, stage)
  abstract = jax.eval_shape(
    make_model(config).init, jax.random.key(0), *model_inputs(config)
  )
  variables, adam = jax.device_get(
    (
      checkpoints.load_variables(source, name, abstract, ema),
      None if ema else checkpoints.load_adam(source, name, abstract),
    )
  )
  if "logit_scale" in variables["params"]:  # PyTorch's file has none.
    temperature = float(np.exp(-variables["params"]["logit_scale"]))
    config["loss"] = {**config["loss"], "temperature": temperature}
  if target.endswith(".safetensors"):
    weight_files.save_safetensors(
      target,
      variables,
      _without_paths(config),
      ml_dtypes.bfloat16 if bfloat16 else None,
    )
  elif is_torch:
    settings = _full_config(config, stage)[checkpoints.optimizer_field(name)]
    torch_checkpoint.save(
      target,
      variables,
      network,
      adam=adam,
      learning_rate=settings["learning_rate"],
      betas=(settings["b1"], settings["b2"]),
      global_step=checkpoints.step_of(source) or 0,
    )
    checkpoints.write_config(beside, config)
  else:
    config = _full_config(config, stage)
    checkpoints.claim_workdir(target, config)
    if adam is not None:
      tx = make_optimizer(**config[checkpoints.optimizer_field(name)])
      opt_state = with_adam(tx.init(variables["params"]), adam)
      variables = {**variables, "opt_state": opt_state}
    store = CheckpointStore(target, keep=1)
    store.save(0, {name: variables}, config)
    store.close()


def main(argv):
  """Converts, then says where the result is."""
  logging.set_verbosity(logging.WARNING)  # Orbax tells every step.
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  try:
    convert(
      _NETWORK.value,
      _INPUT.value,
      _OUTPUT.value,
      _EMA.value,
      _BFLOAT16.value,
    )
  except (
    checkpoints.CheckpointError,
    torch_checkpoint.TorchCheckpointError,
    OSError,
  ) as e:
    sys.exit(f"error: {e}")
  print(f"written: {_OUTPUT.value}")


if __name__ == "__main__":
  app.run(main)
