"""Sweeps: many runs of one command, in worker processes, each in a folder of its own, none ever lost."""
