"""Weights of the networks that only measure, from files that users bring.

They are PyTorch's files, read without torch (torch_file.py); none is included
here or downloaded.  Names follow rules, as in torch_checkpoint.py:

  SyncNet    syncnet_v2.model of syncnet_python: a state_dict with the keys
             netcnnlip.N.*, netfclip.N.*, netcnnaud.N.*, netfcaud.N.*, where N
             counts the layers of four nn.Sequentials.
  LPIPS      torch.save(lpips.LPIPS(net="alex").state_dict(), FILE) of the
             lpips package; "vgg" likewise: net.sliceI.N.{weight,bias} and
             linI.model.1.weight.
  Inception  pt_inception-2015-12-05-6726825d.pth of pytorch-fid's releases:
             Conv2d_*.{conv,bn}.*, Mixed_*.branch*.{conv,bn}.*.
"""

import re
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2l_jax import torch_checkpoint, torch_file
from w2l_jax.models import inception, lpips, syncnet

_STATISTICS = {
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def _dense_or_conv(array: np.ndarray) -> np.ndarray:
  """OIHW to HWIO; OITHW to HW(TI)O, time on the channels; OI to IO."""
  if array.ndim == 5:
    array = array.transpose(3, 4, 2, 1, 0)
    return array.reshape(*array.shape[:2], -1, array.shape[-1])
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _syncnet_key(path: tuple[str, ...]) -> str:
  stream, layer, leaf = path
  number = layer.removeprefix("layer_")
  leaf = "weight" if leaf == "kernel" else _STATISTICS[leaf]
  return f"{stream}.{number}.{leaf}"


def _syncnet_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple:
  if path[-1] != "kernel":
    return shape
  if len(shape) == 2:
    return shape[::-1]
  height, width, channels, out = shape
  if path[0] == "netcnnaud":
    return out, channels, height, width
  frames = syncnet.FRAMES if path[1] == "layer_0" else 1
  return out, channels // frames, frames, height, width


def _lpips_key(path: tuple[str, ...]) -> str:
  if path[0].startswith("lin"):
    return f"{path[0]}.model.1.weight"
  slice_name, number = path[0].split("_")
  leaf = "weight" if path[1] == "kernel" else path[1]
  return f"net.{slice_name}.{number}.{leaf}"


def _lpips_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple:
  if path[0].startswith("lin"):
    return (1, *shape, 1, 1)
  return _plain_shape(path, shape)


def _inception_key(path: tuple[str, ...]) -> str:
  leaf = "weight" if path[-1] == "kernel" else _STATISTICS[path[-1]]
  return ".".join([*path[:-1], leaf])


def _plain_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple:
  if path[-1] != "kernel":
    return shape
  height, width, channels, out = shape
  return out, channels, height, width


def _load(
  path: str,
  what: str,
  model: nn.Module,
  inputs: tuple,
  key_of: Callable,
  shape_of: Callable,
  ignored: str,
) -> dict:
  """Reads a file as a network's variables.

  Args:
    path: of the file.
    what: names the network in errors.
    model: the network.
    inputs: shapes of its inputs.
    key_of, shape_of: from a Flax path, and its shape, to the file's.
    ignored: pattern of keys that the file may have beside them.
  """
  tensors = torch_checkpoint.state_dict(path, torch_file.read(path))
  tensors = {k: v for k, v in tensors.items() if not re.fullmatch(ignored, k)}
  abstract = jax.eval_shape(
    model.init,
    jax.random.key(0),
    *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs),
  )
  names = {
    path: tuple(key.key for key in path)[1:]
    for path, _ in jax.tree_util.tree_leaves_with_path(abstract)
  }
  expected = {
    key_of(names[path]): shape_of(names[path], leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
  }
  torch_checkpoint.check_keys(path, what, tensors, expected)

  def convert(path, leaf):
    array = tensors[key_of(names[path])]
    if names[path][-1] == "kernel":
      array = _dense_or_conv(array)
    return np.ascontiguousarray(array.reshape(leaf.shape), np.float32)

  return jax.tree_util.tree_map_with_path(convert, abstract)


def load_syncnet(path: str, width: float = 1.0) -> dict:
  """Reads SyncNet's variables.

  Args:
    path: of syncnet_v2.model.
    width: of the network; the published one is 1.

  Raises:
    TorchCheckpointError: if it is missing or another network.
  """
  return _load(
    path,
    "SyncNet (syncnet_v2.model of syncnet_python)",
    syncnet.SyncNet(width),
    (
      (1, syncnet.FRAMES, syncnet.FACE_SIZE, syncnet.FACE_SIZE, 3),
      (1, syncnet.MFCC_COLUMNS, 13),
    ),
    _syncnet_key,
    _syncnet_shape,
    ignored=r"",
  )


def load_lpips(path: str) -> tuple[dict, str]:
  """Reads LPIPS's variables.

  Args:
    path: of the state_dict of the lpips package's LPIPS.

  Returns:
    (variables, "alex" or "vgg").

  Raises:
    TorchCheckpointError: if it is missing or another network.
  """
  tensors = torch_checkpoint.state_dict(path, torch_file.read(path))
  net = "vgg" if "net.slice1.2.weight" in tensors else "alex"
  shape = (1, 64, 64, 3)
  variables = _load(
    path,
    f"LPIPS ({net}) with its backbone: torch.save(lpips.LPIPS(net='{net}')"
    ".state_dict(), FILE) of the lpips package",
    lpips.LPIPS(net),
    (shape, shape),
    _lpips_key,
    _lpips_shape,
    ignored=r"scaling_layer\..*|lins\..*",
  )
  return variables, net


def load_inception(path: str, width: float = 1.0) -> dict:
  """Reads the variables of FID's Inception.

  Args:
    path: of pytorch-fid's pt_inception-2015-12-05-6726825d.pth.
    width: of the network; the published one is 1.

  Raises:
    TorchCheckpointError: if it is missing or another network.
  """
  return _load(
    path,
    "Inception (pt_inception-2015-12-05-6726825d.pth of pytorch-fid)",
    inception.Inception(width),
    ((1, inception.SIZE, inception.SIZE, 3),),
    _inception_key,
    _plain_shape,
    ignored=r"(fc|AuxLogits)\..*",
  )
