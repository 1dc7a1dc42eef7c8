"""Profiles, the notebook runner, the report and comparison with committed tables."""
