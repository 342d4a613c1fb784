"""Checkpoints that come with the package, taken by name.

Each is a folder of `released/`: one .safetensors file for each network, in
bfloat16, and MODEL_CARD.md, which says what it was trained on, its licence and
what it cannot do.
"""

import os
import pathlib

_FOLDER = pathlib.Path(__file__).with_name("released")


def names() -> list[str]:
  """Returns the names that there are."""
  return sorted(card.parent.name for card in _FOLDER.glob("*/MODEL_CARD.md"))


def resolve(path: str, network: str) -> str:
  """Returns the file that a name means; any other path as it is.

  A file or folder of that name in the working directory comes first.

  Args:
    path: a name of `names`, or any path.
    network: "expert" or "generator".
  """
  path = os.fspath(path)
  if path in names() and not os.path.exists(path):
    return os.fspath(_FOLDER / path / f"{network}.safetensors")
  return path
