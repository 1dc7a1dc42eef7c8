"""Self-supervised pre-training and distillation of backbones."""
