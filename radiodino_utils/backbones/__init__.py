"""Backbones: the registry of names, checkpoints and preprocessing."""
