"""How many strips are read right from end to end: `python score.py FOLDER TABLE.csv`."""

import sys
from pathlib import Path

import pandas as pd

folder, table = map(Path, sys.argv[1:])
how = {"dtype": str, "keep_default_na": False}
truth = pd.read_csv(folder / "none.csv", **how).set_index("path").drop(columns="split")
read = pd.read_csv(table, **how)
read.index = pd.Index([f"{Path(path).parent.name}/{Path(path).name}" for path in read["path"]])
truth, read = truth.loc[read.index], read[truth.columns]

right = truth == read
# A place without a digit is no part of the sequence, whatever is answered there.
of_sequence = right | (truth == "none")
for what, rows in (("sequence", of_sequence), ("all six heads", right)):
    correct = rows.all(axis=1)
    print(f"{what} right: {correct.mean():.1%} of {len(correct):,}")
by_length = of_sequence.all(axis=1).groupby(truth["length"]).mean()
print("by length:", ", ".join(f"{length} {share:.0%}" for length, share in by_length.items()))
