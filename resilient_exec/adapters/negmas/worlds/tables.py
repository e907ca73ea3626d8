"""What saves the tables of a world, imported for the workers that are forked; else each would do so when it is needed.

It is used only where pandas has pyarrow, which it imports itself.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

__all__: list[str] = []

if "pyarrow" in sys.modules:
    for _name in ("pyarrow.parquet", "pyarrow.pandas_compat", "pyarrow.vendored.version"):
        with contextlib.suppress(Exception):  # then negmas says so, where it is needed
            importlib.import_module(_name)
