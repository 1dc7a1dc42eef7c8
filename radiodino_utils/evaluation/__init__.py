"""Protocols, metrics, result rows and published numbers."""
