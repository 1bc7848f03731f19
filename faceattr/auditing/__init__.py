"""What is wrong with labelled images: copies, contradictions, swapped names, too few rows."""
