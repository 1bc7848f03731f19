"""A server that answers programs: one model, many who ask."""
