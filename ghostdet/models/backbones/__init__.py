"""Backbones, in MMDetection's ``MODELS``."""
