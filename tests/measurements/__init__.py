"""Programs that measure what docs/REPRODUCING.md tells of preparation."""
