"""A model file in, a file for another runtime out, kept only if it answers alike."""
