"""Read any image file as an upright sRGB picture with its date. Nothing here imports torch."""
