"""From labelled images to a model and a report on it."""
