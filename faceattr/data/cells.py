"""The cells of a CSV file as text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd

SEPARATORS = {";": "semicolons", "\t": "tabs"}  # that spreadsheets write in place of commas


def read_cells(path: Path) -> pd.DataFrame:
    """All cells as text; the index counts the lines below the header.

    Raises:
        ValueError: It is no CSV file with commas, in UTF-8, each column named once.
    """
    how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        header = pd.read_csv(path, header=None, nrows=1, **how).iloc[0].str.strip()
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, index_col=False, skipinitialspace=True, skip_blank_lines=False, **how
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} is not a readable CSV file: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a CSV file in UTF-8.") from None
    for separator, name in SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise ValueError(f"{path} separates its columns by {name}; expected commas.")
    if repeated := sorted(set(header[header.duplicated() & (header != "")])):
        raise ValueError(f"{path} has two columns called {', '.join(repeated)}.")
    table.columns = list(header)
    table = table.loc[:, header.ne("").to_numpy()]
    return table[table.ne("").any(axis=1)]
