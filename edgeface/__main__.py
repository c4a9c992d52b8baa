"""``python -m edgeface`` is the ``edgeface`` command."""

from edgeface.cli import main

raise SystemExit(main())
