"""Flags of commands that take a --config; its mistakes are one sentence."""

import sys

from absl import app


def parse(argv: list[str]) -> list[str]:
  """Parses flags, for app.run; ends where a config cannot be had."""
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, KeyError, OSError) as e:
    sys.exit(config_error(e))


def config_error(e: Exception) -> str:
  """One sentence of an exception of ml_collections."""
  text = str(e.args[-1] if e.args else e).replace("\\n", " ")
  return f"error: --config: {' '.join(text.split())}"
