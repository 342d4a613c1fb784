"""Comparison with PyTorch: twins of the networks, and stored arrays."""
