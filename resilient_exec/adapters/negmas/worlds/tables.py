"""Imports the modules that save a world's tables; it is preloaded, so that forked workers need not import them again.

They are used only if pyarrow is installed, which pandas imports itself.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

__all__: list[str] = []

if "pyarrow" in sys.modules:
    for _name in ("pyarrow.parquet", "pyarrow.pandas_compat", "pyarrow.vendored.version"):
        with contextlib.suppress(Exception):  # negmas raises it again when it needs the module
            importlib.import_module(_name)
