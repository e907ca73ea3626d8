"""One lane with its real workers, for each test that asks for it."""

from __future__ import annotations

from lane_fixtures import guarded, kept, lane, ready, shared  # noqa: F401  (fixtures)
