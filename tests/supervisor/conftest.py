"""Scripts, for the tests that need a process of their own."""

from __future__ import annotations

from scripts import start_script  # noqa: F401  (a fixture)
