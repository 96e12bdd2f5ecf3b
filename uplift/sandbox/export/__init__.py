"""Synthetic data to try Uplift with. Nobody in it exists."""
