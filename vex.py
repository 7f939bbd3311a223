"""Start Vex: `python3 vex.py serve`; in the zipapp this file is `__main__.py`."""

from __future__ import annotations

import gc
import sys

# What is being loaded stays: looking for garbage in it would only take time.
gc.disable()
from vex.cli import main  # noqa: E402

gc.enable()

if __name__ == "__main__":
    sys.exit(main())
