"""Hydra finds its plugins in the packages under `hydra_plugins`."""
