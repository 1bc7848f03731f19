"""From a model and pictures to described faces."""
