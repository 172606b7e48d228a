"""The upscaler: images in, larger images out."""
