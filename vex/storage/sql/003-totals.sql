-- How many repositories hold a manifest, for the page that lists them: counting 100,000 of them takes as long as the page itself.
CREATE TABLE total (
  repositories INTEGER NOT NULL
);
INSERT INTO total SELECT count(*) FROM repository WHERE emptied IS NULL;

CREATE TRIGGER repository_insert AFTER INSERT ON repository WHEN NEW.emptied IS NULL BEGIN
  UPDATE total SET repositories = repositories + 1;
END;

CREATE TRIGGER repository_update AFTER UPDATE OF emptied ON repository WHEN (NEW.emptied IS NULL) <> (OLD.emptied IS NULL) BEGIN
  UPDATE total SET repositories = repositories + (NEW.emptied IS NULL) - (OLD.emptied IS NULL);
END;

CREATE TRIGGER repository_delete AFTER DELETE ON repository WHEN OLD.emptied IS NULL BEGIN
  UPDATE total SET repositories = repositories - 1;
END;
