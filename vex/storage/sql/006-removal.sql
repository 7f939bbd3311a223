-- How a manifest leaves a repository, in `state`; see `vex/storage/removal.py`. `expires` is when the next step is due.
ALTER TABLE repository_manifest ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
UPDATE repository_manifest SET state = 1 WHERE expires IS NOT NULL;
-- Referrers without a tag whose subject has not come: a day from now, as if they had just been pushed.
UPDATE repository_manifest SET expires = CAST(strftime('%s', 'now') AS INTEGER) + 86400
  WHERE expires IS NULL AND subject IS NOT NULL AND holders = 0 AND NOT EXISTS (
    SELECT 1 FROM manifest m JOIN repository_manifest s ON s.manifest = m.id
      WHERE m.digest = repository_manifest.subject AND s.repository = repository_manifest.repository);

DROP INDEX repository_manifest_unheld;
CREATE INDEX repository_manifest_unheld ON repository_manifest (repository, pushed, manifest) WHERE holders = 0 AND state < 2;
-- What makes a repository one that holds something, besides its tags.
CREATE INDEX repository_manifest_root ON repository_manifest (repository) WHERE holders = 0 AND state < 2 AND subject IS NULL;
CREATE INDEX repository_manifest_waiting ON repository_manifest (repository, subject)
  WHERE holders = 0 AND state < 2 AND subject IS NOT NULL AND expires IS NOT NULL;
