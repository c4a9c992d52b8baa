"""Commands that produce the project's own tables and plots. Those in :mod:`benchmarks.research` prove claims."""

from __future__ import annotations

import sys

from edgeface.cli.interrupts import quiet_until_main
from edgeface.deprecations import OldModules

sys.meta_path.append(OldModules())
quiet_until_main()
