"""Networks in single files: safetensors with their config, and PyTorch's.

A .safetensors file holds one network's variables under slashed names
("params/audio_encoder/block_0/conv/kernel") and, in its metadata, the config
that makes it usable.  A PyTorch file has no config: it is taken for the
original's, or for what a .json of the same name beside it says.
"""

import json
import os

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from w2l_jax import faces, torch_checkpoint

SUFFIXES = (".safetensors", ".pth", ".pt")
_TORCH_NETWORKS = {
  "expert": "sync_expert",
  "generator": "generator",
  "discriminator": "quality_discriminator",
}


class WeightFileError(ValueError):
  """A file of weights cannot be used; the message says why."""


def is_weight_file(path: str) -> bool:
  """Whether a path is a file of weights, by its suffix."""
  return os.path.isfile(path) and path.endswith(SUFFIXES)


def original_config(stage: str) -> dict:
  """What is to be known of the original's networks to use them.

  Args:
    stage: "expert" or "generator".
  """
  return {
    "stage": stage,
    "image_size": 96,
    "width": 1.0,
    "channel_order": "bgr",
    "windows": {
      "frames": 5,
      "mel_columns": 16,
      "frame_mel_offset": -1,
      # The original's inference.py; its released weights expect it.
      "inference_mel_offset": 0,
      "min_negative_distance": 1,
      "min_reference_distance": 1,
      "speech_only": False,
      "speech_threshold": -2.5,
      "windows_per_clip": 1,
    },
    **({"loss": {"kind": "cosine_bce"}} if stage == "expert" else {}),
    "preparation": {
      "image_size": 96,
      "detector": "mtcnn",
      "crop_rule": faces.CROP_RULE,
      "audio_padding": "reflect",
      "jpeg_quality": 95,
      "tracking": dict(vars(faces.Tracking())),
    },
  }


def load_config(path: str, stage: str) -> dict:
  """Reads the config of a file of weights.

  Args:
    path: of `is_weight_file`.
    stage: "expert" or "generator", which a PyTorch file is taken to be of.

  Raises:
    WeightFileError: if it has none.
  """
  if not path.endswith(".safetensors"):
    beside = f"{os.path.splitext(path)[0]}.json"
    if not os.path.exists(beside):
      return original_config(stage)
    try:
      with open(beside) as f:
        return json.load(f)
    except json.JSONDecodeError as e:
      raise WeightFileError(f"{beside}: is no JSON ({e})") from e
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      return json.loads(file.metadata()["config"])
  except safetensors.SafetensorError as e:
    raise WeightFileError(
      f"{path}: cannot be read as safetensors ({e}); it is cut off or "
      "something else"
    ) from e
  except (KeyError, TypeError, json.JSONDecodeError) as e:
    raise WeightFileError(
      f"{path}: has no config in its metadata; expected a file that "
      "launch.convert_checkpoint wrote"
    ) from e


def load_variables(path: str, stage: str, network: str) -> dict:
  """Reads the variables of a file of weights as nested dicts of NumPy arrays.

  Args:
    path: of `is_weight_file`.
    stage: "expert" or "generator".
    network: "expert", "generator" or "discriminator".

  Raises:
    WeightFileError, TorchCheckpointError: if it cannot be read.
  """
  config = load_config(path, stage)
  variables: dict = {}
  if not path.endswith(".safetensors"):
    variables = torch_checkpoint.load(
      path, _TORCH_NETWORKS[network], **_size(config)
    )
    if _is_contrastive(config):
      # PyTorch's file has no place for it; the config holds the learnt one.
      scale = np.float32(-np.log(config["loss"]["temperature"]))
      variables["params"]["logit_scale"] = scale
    return variables
  for name, array in safetensors.numpy.load_file(path).items():
    tree = variables
    *parents, leaf = name.split("/")
    for parent in parents:
      tree = tree.setdefault(parent, {})
    # Files may be kept in half the size; params are float32.
    if array.dtype == ml_dtypes.bfloat16:
      array = array.astype(np.float32)
    tree[leaf] = array
  return variables


def load_adam(path: str, stage: str, network: str):
  """Reads Adam's state of a file of weights.

  Args:
    path, stage, network: as for `load_variables`.

  Returns:
    An optax.ScaleByAdamState, or None if the file has none.

  Raises:
    WeightFileError, TorchCheckpointError: if it cannot be read.
  """
  if path.endswith(".safetensors"):
    return None
  config = load_config(path, stage)
  _, adam, _ = torch_checkpoint.load_training(
    path, _TORCH_NETWORKS[network], **_size(config)
  )
  if adam is not None and _is_contrastive(config):
    adam.mu["logit_scale"] = adam.nu["logit_scale"] = np.float32(0)
  return adam


def _size(config: dict) -> dict:
  return {"width": config["width"], "image_size": config["image_size"]}


def _is_contrastive(config: dict) -> bool:
  return config["stage"] == "expert" and config["loss"]["kind"] == "contrastive"


def save_safetensors(
  path: str, variables: dict, config: dict, dtype: np.dtype | None = None
) -> None:
  """Writes one network with its config; has this name only when complete.

  Args:
    path: of the file.
    variables: nested dicts of arrays.
    config: what `load_config` is to return.
    dtype: that the arrays are kept in; None: their own.
  """
  flat = {}

  def put(prefix, tree):
    for name, value in tree.items():
      if isinstance(value, dict):
        put(f"{prefix}{name}/", value)
      else:
        flat[prefix + name] = np.array(value, dtype, order="C")

  put("", variables)
  partial = f"{path}.{os.getpid()}.partial"
  # save_file would leave it to its owner alone, whatever the umask says.
  content = safetensors.numpy.save(
    flat, metadata={"config": json.dumps(config, sort_keys=True)}
  )
  with open(partial, "wb") as f:
    f.write(content)
  os.replace(partial, path)
