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
