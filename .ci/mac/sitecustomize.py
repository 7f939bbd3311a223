"""Makes Python look as it does on a Mac, as far as Vex can tell: for a run of tests with PYTHONPATH=.ci/mac."""

import os
import sys
import urllib.request  # noqa: F401 -- on a Mac it wants a module that is not here

for name in ("sendfile", "posix_fadvise", "setxattr", "getxattr", "listxattr", "removexattr"):
    delattr(os, name)
sys.platform = "darwin"
