"""From labelled pictures to a model and a report on it."""
