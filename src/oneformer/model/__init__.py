"""Batch of images and a task token -> Outputs: the OneFormer network, its backbones and its weight files."""
