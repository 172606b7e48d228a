"""A page in the browser that upscales pictures on this machine."""
