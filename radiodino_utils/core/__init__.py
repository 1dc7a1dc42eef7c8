"""Errors, files, caches, downloads and provenance: what every layer needs."""
