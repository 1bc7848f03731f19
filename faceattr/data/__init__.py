"""Labelled images as checked records, read, put together, divided and cropped."""
