"""Command lines: absl flags here, everything else in the packages."""
