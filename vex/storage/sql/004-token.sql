-- Passwords of machines. A name is never that of a user too.
CREATE TABLE token (
  name         TEXT PRIMARY KEY,
  hash         BLOB NOT NULL,         -- SHA-256: nobody can guess 256 random bits, so a slow hash would protect nothing
  created      INTEGER NOT NULL,
  expires      INTEGER,               -- NULL for never
  used         INTEGER,               -- last use, as far as it was written down; NULL for never
  repositories TEXT NOT NULL,         -- a pattern; '*' for all
  read_only    INTEGER NOT NULL
) WITHOUT ROWID;
