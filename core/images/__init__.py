"""Any image file as an upright sRGB picture with its date: nothing here imports torch."""
