"""Commands that produce the project's own tables and plots. Those in :mod:`benchmarks.research`
prove claims."""

from __future__ import annotations

import edgeface  # noqa: F401 - from here on Ctrl-C leaves no traceback
