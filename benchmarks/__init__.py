"""Commands that produce the project's own tables and plots. Those in :mod:`benchmarks.research`
prove claims."""

from __future__ import annotations

from edgeface.interrupts import quiet_until_main

quiet_until_main()
