"""Datasets: reading images, folders and archives, and the registry of names."""
