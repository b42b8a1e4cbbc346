"""Fused modules: `vitrail.optimize` for inference on CPU and CUDA, `fuse_for_training` for training on CPU."""
