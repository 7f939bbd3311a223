"""The disk that files are on: what says that there is no room on it, or not for this one."""

from __future__ import annotations

import errno

# No space in the file system, a quota that is used up, and more than a file may hold.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
