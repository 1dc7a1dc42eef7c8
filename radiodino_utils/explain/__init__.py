"""Attention, Grad-CAM and patch similarity, and how faithful they are."""
