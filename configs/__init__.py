"""Experiments: every number of a run that is not a fact of the method."""
