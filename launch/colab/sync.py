r"""Makes the notebooks from their texts.

  python -m launch.colab.sync

The texts (NAME.py, jupytext's percent format) are what is edited.  This fills
in what they share, the badge and the first code cell, and writes NAME.ipynb
without outputs.  Needs the extra "notebooks".
"""

import ast
import pathlib
import re

import jupytext

FOLDER = pathlib.Path(__file__).parent
NAMES = ("lipsync_a_video", "train_on_your_videos", "compare_with_pytorch")
_INSTALL = FOLDER / "install_cell.py"


def repository() -> str:
  """The project's address, which install_cell.py alone knows."""
  for node in ast.parse(_INSTALL.read_text(encoding="utf-8")).body:
    if isinstance(node, ast.Assign) and node.targets[0].id == "REPOSITORY":
      return node.value.value
  raise ValueError(f"{_INSTALL}: REPOSITORY is not there")


def badge(name: str) -> str:
  """The link that opens a notebook in Colab, as Markdown."""
  at = repository().removeprefix("https://github.com/")
  return (
    "[![Open in Colab]"
    "(https://colab.research.google.com/assets/colab-badge.svg)]"
    f"(https://colab.research.google.com/github/{at}/blob/main/launch/colab/"
    f"{name}.ipynb)"
  )


def completed(name: str, text: str) -> str:
  """A notebook's text with its badge and its first code cell.

  Args:
    name: of the notebook.
    text: with those, with older ones, or with the words BADGE and INSTALL where
      they belong.
  """
  install = _INSTALL.read_text(encoding="utf-8").split("# %%\n", 1)[1]
  text = re.sub(
    r"^(BADGE|\[!\[Open in Colab\].*)$", badge(name), text, count=1, flags=re.M
  )
  return re.sub(
    r"^# %% (INSTALL\n|tags=\[\"install\"\]\n.*?\ninstall\(\)\n)",
    lambda _: f'# %% tags=["install"]\n{install}',
    text,
    count=1,
    flags=re.M | re.S,
  )


def as_notebook(text: str) -> str:
  """The .ipynb of a text; the same text gives the same file."""
  notebook = jupytext.reads(text, fmt="py:percent")
  for number, cell in enumerate(notebook.cells):
    cell["id"] = f"cell-{number}"
  # Which jupytext wrote it is nobody's business.
  representation = notebook.metadata["jupytext"]["text_representation"]
  representation.pop("jupytext_version", None)
  representation.pop("format_version", None)
  return jupytext.writes(notebook, fmt="ipynb")


def main() -> None:
  """Writes all that differs, and names it."""
  for name in NAMES:
    path = FOLDER / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    for file, contents in (
      (path, completed(name, text)),
      (path.with_suffix(".ipynb"), as_notebook(completed(name, text))),
    ):
      old = file.read_text(encoding="utf-8") if file.exists() else None
      if contents != old:
        file.write_text(contents, encoding="utf-8")
        print(f"written: {file}")


if __name__ == "__main__":
  main()
