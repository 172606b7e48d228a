"""Upscaling: exact tiled inference for images of any size, and the handling of image files around it."""
