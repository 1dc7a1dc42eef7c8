"""Features of frozen backbones: engines, extraction, patch maps and projections."""
