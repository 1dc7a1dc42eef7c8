"""Tools behind the notebooks that use and reproduce RadioDINO."""

__version__ = "0.1.0"
