"""Figures of merit: NumPy or JAX functions of arrays, no files, no networks."""
