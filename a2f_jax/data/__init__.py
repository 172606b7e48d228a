"""Datasets, decoded cache, patches and augmentation, MATLAB resize, image files."""
