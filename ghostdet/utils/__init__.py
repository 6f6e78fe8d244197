"""What has nothing to do with detectors: walking configs, files, text."""
