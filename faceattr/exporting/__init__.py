"""A model file in, a file for another runtime out, kept only with a proof that it answers alike."""
