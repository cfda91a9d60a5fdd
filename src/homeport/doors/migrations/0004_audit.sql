-- From where, by what kind of asker, and how it ended.
ALTER TABLE audit ADD COLUMN actor TEXT NOT NULL DEFAULT 'person';
ALTER TABLE audit ADD COLUMN origin TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN outcome TEXT NOT NULL DEFAULT 'done';
