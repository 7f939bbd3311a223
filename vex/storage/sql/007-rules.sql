-- What rules and undo need.

-- What is deleted and kept for a while: see removal.py. A quota does not count it.
CREATE INDEX repository_manifest_gone ON repository_manifest (repository) WHERE state = 3;

-- When a manifest was last pulled, it or what it lists, and asked for, as far as that was written down; NULL for never. Nobody knows of
-- what is there already: that counts as pulled now, so that no rule takes it for something that nobody needs.
ALTER TABLE repository_manifest ADD COLUMN pulled INTEGER;
ALTER TABLE repository_manifest ADD COLUMN asked INTEGER;
UPDATE repository_manifest SET pulled = CAST(strftime('%s', 'now') AS INTEGER);

-- 0: what this token fetches does not count as pulled, nor as asked for.
ALTER TABLE token ADD COLUMN counted INTEGER NOT NULL DEFAULT 1;

-- How many seconds the label or annotation quay.expires-after gives an image; NULL without one. It counts for what is pushed from now on.
ALTER TABLE manifest_summary ADD COLUMN lifetime INTEGER;

-- What the rules would remove, as it was shown, to be applied by its number.
CREATE TABLE rule_plan (
  id            INTEGER PRIMARY KEY,
  time          INTEGER NOT NULL,
  configuration TEXT NOT NULL,        -- a digest of the sections that it was made with
  state         TEXT NOT NULL,        -- making, ready, applied
  user          TEXT NOT NULL
);
-- By name and digest, without references: what it tells of may be gone meanwhile.
CREATE TABLE rule_plan_tag (
  plan       INTEGER NOT NULL REFERENCES rule_plan (id),
  number     INTEGER NOT NULL,
  repository TEXT NOT NULL,
  tag        TEXT NOT NULL,           -- '' for a manifest that was pushed by its digest
  digest     TEXT NOT NULL,
  rule       TEXT NOT NULL,
  pushed     INTEGER NOT NULL,
  pulled     INTEGER,
  bytes      INTEGER NOT NULL,        -- that come free with it
  done       INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (plan, number)
) WITHOUT ROWID;
