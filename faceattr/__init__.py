"""Read attributes off faces with a model of your own."""

__version__ = "0.1.0"
