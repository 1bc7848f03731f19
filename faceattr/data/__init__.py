"""Labelled pictures as checked records, read, put together, divided and cut."""
