"""Start Vex: `python3 vex.py serve`; in the zipapp this file is `__main__.py`."""

from __future__ import annotations

import gc
import sys
import zipimport


class _Importer(zipimport.zipimporter):
    """Imports from the zipapp; Python's own compiles each module twice, once only to name its file: a fifth of the time to start."""

    def get_filename(self, fullname: str) -> str:
        end = "/__init__.py" if self.is_package(fullname) else ".py"
        return f"{self.archive}/{self.prefix}{fullname.rpartition('.')[2]}{end}"


if __name__ == "__main__":
    sys.path_hooks.insert(0, _Importer)
    sys.path_importer_cache.pop(sys.path[0], None)
    # What is being loaded stays: looking for garbage in it would only take time.
    gc.disable()
    from vex.cli import main

    gc.enable()
    sys.exit(main())
