"""Start Vex: `python3 vex.py serve`; in the zipapp this file is `__main__.py`."""

from __future__ import annotations

import sys

from vex.cli import main

if __name__ == "__main__":
    sys.exit(main())
