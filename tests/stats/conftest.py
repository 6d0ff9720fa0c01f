"""Property tests of this folder: the same examples every time, and no limit on a slow machine's seconds."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("audit", deadline=None, derandomize=True)
settings.load_profile("audit")
