"""Networks that come with the package, taken by name.

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


def folder(name: str) -> str:
  """Returns the folder of one of `names`."""
  return os.fspath(_FOLDER / name)


def is_name(path: str) -> bool:
  """Whether a path means one of `names`; what lies there comes first."""
  return os.fspath(path) in names() and not os.path.exists(path)
