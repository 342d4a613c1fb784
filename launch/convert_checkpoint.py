r"""Converts networks between PyTorch, safetensors and our workdirs.

  python -m launch.convert_checkpoint --network=generator \
    --input=wav2lip_gan.pth --output=wav2lip_gan.safetensors
  python -m launch.convert_checkpoint --network=generator \
    --input=runs/gan --output=ours.pth

The suffix says what a file is: .pth and .pt are PyTorch's (reading them needs
no torch, writing does), .safetensors carries its config with it; an --output
without one becomes a workdir that launch.evaluate and launch.lipsync take.
"""

import os
import sys

import jax
from absl import app, flags, logging

from configs import expert_lrs2, gan_lrs2
from w2l_jax import (
  checkpoints,
  inference,
  torch_checkpoint,
  train_expert,
  weight_files,
)

_NETWORK = flags.DEFINE_enum(
  "network", None, ["sync_expert", "generator"], "Which network.", required=True
)
_INPUT = flags.DEFINE_string(
  "input", None, "Workdir, step folder, or file of weights.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "File of weights, or a new workdir.", required=True
)


def _full_config(config: dict, stage: str) -> dict:
  """Adds what a workdir's config has and a single file's need not."""
  original = expert_lrs2 if stage == "expert" else gan_lrs2
  return {**checkpoints.to_plain(original.get_config()), **config}


def convert(network: str, source: str, target: str) -> None:
  """Converts one network; see the module's docstring.

  Raises:
    CheckpointError, TorchCheckpointError: naming the file.
  """
  stage = "expert" if network == "sync_expert" else "generator"
  if os.path.exists(target):
    raise checkpoints.CheckpointError(
      f"{target}: exists already; give another --output"
    )
  if stage == "expert":
    variables, config = train_expert.load_frozen(source)
  else:
    _, variables, config = inference.load_generator(source)
  variables = jax.device_get(variables)
  if target.endswith(".safetensors"):
    weight_files.save_safetensors(target, variables, config)
  elif target.endswith((".pth", ".pt")):
    torch_checkpoint.save(target, variables, network)
    checkpoints.write_config(f"{os.path.splitext(target)[0]}.json", config)
  else:
    config = _full_config(config, stage)
    checkpoints.claim_workdir(target, config)
    store = checkpoints.CheckpointStore(target, keep=1)
    store.save(0, {stage: variables}, config)
    store.close()


def main(argv):
  """Converts, then says where the result is."""
  logging.set_verbosity(logging.WARNING)  # Orbax tells every step.
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  try:
    convert(_NETWORK.value, _INPUT.value, _OUTPUT.value)
  except (
    checkpoints.CheckpointError,
    torch_checkpoint.TorchCheckpointError,
    OSError,
  ) as e:
    sys.exit(f"error: {e}")
  print(f"written: {_OUTPUT.value}")


if __name__ == "__main__":
  app.run(main)
