-- What the lists of the web interface show and sort by. Triggers keep it right, whatever changes the tables of 001.

-- size: bytes of the blobs that manifests of the repository reference, each counted once; pushed: the newest push.
ALTER TABLE repository ADD COLUMN tags INTEGER NOT NULL DEFAULT 0;
ALTER TABLE repository ADD COLUMN pushed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE repository ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
UPDATE repository SET
  tags = (SELECT count(*) FROM tag WHERE repository = repository.id),
  pushed = (SELECT coalesce(max(pushed), 0) FROM repository_manifest WHERE repository = repository.id),
  size = (SELECT coalesce(sum(size), 0) FROM blob WHERE id IN (SELECT blob FROM manifest_blob WHERE repository = repository.id));
-- With emptied in front, instead of in a condition, these hold all that skipping, counting and filtering need.
CREATE INDEX repository_name ON repository (emptied, name);
CREATE INDEX repository_pushed ON repository (emptied, pushed, name);
CREATE INDEX repository_size ON repository (emptied, size, name);

-- size: of what the tag points to.
ALTER TABLE tag ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tag_updated ON tag (repository, updated, name);
CREATE INDEX tag_size ON tag (repository, size, name);

-- holders: how many tags and indexes of the repository reference the manifest.
ALTER TABLE repository_manifest ADD COLUMN holders INTEGER NOT NULL DEFAULT 0;
UPDATE repository_manifest SET holders =
  (SELECT count(*) FROM tag WHERE repository = repository_manifest.repository AND manifest = repository_manifest.manifest)
  + (SELECT count(*) FROM manifest_child WHERE repository = repository_manifest.repository AND child = repository_manifest.manifest);
CREATE INDEX repository_manifest_unheld ON repository_manifest (repository, pushed, manifest) WHERE holders = 0;

CREATE TABLE manifest_summary (
  manifest  INTEGER PRIMARY KEY REFERENCES manifest (id) ON DELETE CASCADE,
  kind      TEXT NOT NULL,            -- image, index or artifact; '' where nobody has looked yet
  size      INTEGER NOT NULL,         -- bytes of all blobs that it and its children reference, each counted once
  platforms TEXT NOT NULL             -- a JSON list of strings such as linux/arm64/v8
);
CREATE INDEX manifest_summary_missing ON manifest_summary (manifest) WHERE kind = '';
INSERT INTO manifest_summary (manifest, kind, size, platforms) SELECT id, '', 0, '[]' FROM manifest;

-- Every push of a manifest writes its summary again: what has not changed must not cost a look at all tags of all repositories.
CREATE TRIGGER manifest_summary_update AFTER UPDATE OF size ON manifest_summary WHEN NEW.size <> OLD.size BEGIN
  UPDATE tag SET size = NEW.size
    WHERE manifest = NEW.manifest AND repository IN (SELECT repository FROM repository_manifest WHERE manifest = NEW.manifest);
END;

CREATE TRIGGER tag_insert AFTER INSERT ON tag BEGIN
  UPDATE repository SET tags = tags + 1 WHERE id = NEW.repository;
  UPDATE repository_manifest SET holders = holders + 1 WHERE repository = NEW.repository AND manifest = NEW.manifest;
  UPDATE tag SET size = coalesce((SELECT size FROM manifest_summary WHERE manifest = NEW.manifest), 0)
    WHERE repository = NEW.repository AND name = NEW.name;
END;

CREATE TRIGGER tag_update AFTER UPDATE OF manifest ON tag WHEN NEW.manifest <> OLD.manifest BEGIN
  UPDATE repository_manifest SET holders = holders - 1 WHERE repository = OLD.repository AND manifest = OLD.manifest;
  UPDATE repository_manifest SET holders = holders + 1 WHERE repository = NEW.repository AND manifest = NEW.manifest;
  UPDATE tag SET size = coalesce((SELECT size FROM manifest_summary WHERE manifest = NEW.manifest), 0)
    WHERE repository = NEW.repository AND name = NEW.name;
END;

CREATE TRIGGER tag_delete AFTER DELETE ON tag BEGIN
  UPDATE repository SET tags = tags - 1 WHERE id = OLD.repository;
  UPDATE repository_manifest SET holders = holders - 1 WHERE repository = OLD.repository AND manifest = OLD.manifest;
END;

CREATE TRIGGER manifest_child_insert AFTER INSERT ON manifest_child BEGIN
  UPDATE repository_manifest SET holders = holders + 1 WHERE repository = NEW.repository AND manifest = NEW.child;
END;

CREATE TRIGGER manifest_child_delete AFTER DELETE ON manifest_child BEGIN
  UPDATE repository_manifest SET holders = holders - 1 WHERE repository = OLD.repository AND manifest = OLD.child;
END;

CREATE TRIGGER repository_manifest_insert AFTER INSERT ON repository_manifest BEGIN
  UPDATE repository SET pushed = max(pushed, NEW.pushed) WHERE id = NEW.repository;
END;

CREATE TRIGGER repository_manifest_update AFTER UPDATE OF pushed ON repository_manifest BEGIN
  UPDATE repository SET pushed = max(pushed, NEW.pushed) WHERE id = NEW.repository;
END;

CREATE TRIGGER manifest_blob_insert AFTER INSERT ON manifest_blob
WHEN NOT EXISTS (SELECT 1 FROM manifest_blob WHERE repository = NEW.repository AND blob = NEW.blob AND manifest <> NEW.manifest) BEGIN
  UPDATE repository SET size = size + (SELECT size FROM blob WHERE id = NEW.blob) WHERE id = NEW.repository;
END;

CREATE TRIGGER manifest_blob_delete AFTER DELETE ON manifest_blob
WHEN NOT EXISTS (SELECT 1 FROM manifest_blob WHERE repository = OLD.repository AND blob = OLD.blob) BEGIN
  UPDATE repository SET size = size - (SELECT size FROM blob WHERE id = OLD.blob) WHERE id = OLD.repository;
END;
