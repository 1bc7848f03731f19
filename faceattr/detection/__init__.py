"""Finding faces in pictures: one contract, and a file for each detector."""
