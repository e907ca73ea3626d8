"""The fixtures of this folder's tests."""

from __future__ import annotations

from scripts import start_script

__all__ = ["start_script"]
