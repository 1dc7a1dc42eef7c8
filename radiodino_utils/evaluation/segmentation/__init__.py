"""Segmentation probes on frozen patch tokens and their metrics."""
