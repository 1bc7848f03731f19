"""Some rows of a manifest, for quick comparisons.

    python tests/bench/slice_of.py MANIFEST.csv COLUMN ROWS VAL -o SLICE.csv [--as NAME]

Rows that know COLUMN, drawn from its train and val splits with a fixed seed. Another NAME than that
of a task which the shipped model knows gives it a head that starts from nothing.
"""

import argparse
from pathlib import Path

import pandas as pd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("manifest", type=Path)
parser.add_argument("column")
parser.add_argument("rows", type=int)
parser.add_argument("val", type=int)
parser.add_argument("-o", "--output", type=Path, required=True)
parser.add_argument("--as", dest="name")
given = parser.parse_args()

table = pd.read_csv(given.manifest, dtype=str)
table = table[table[given.column].notna()]
counts = {"train": given.rows, "val": given.val}
parts = [
    table[table["split"] == split].sample(count, random_state=0) for split, count in counts.items()
]
drawn = pd.concat(parts)
drawn["path"] = [str((given.manifest.parent / path).absolute()) for path in drawn["path"]]
kept = drawn[["path", "split", given.column]]
kept.rename(columns={given.column: given.name or given.column}).to_csv(given.output, index=False)
