"""Configs, files and text: helpers that know nothing of detectors."""
