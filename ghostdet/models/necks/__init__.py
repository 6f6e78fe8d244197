"""Necks, in MMDetection's ``MODELS``."""
