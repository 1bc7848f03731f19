"""What is wrong with labelled pictures: copies, contradictions, swapped names, too few rows."""
