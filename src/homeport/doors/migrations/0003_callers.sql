-- Who may ask, who asked, and which deliveries of a forge were seen.
CREATE TABLE tokens (
  name    TEXT PRIMARY KEY,
  digest  TEXT NOT NULL UNIQUE,  -- SHA-256 of the token; the token itself is kept nowhere
  body    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each caller of a deploy: those who joined it too.
CREATE TABLE asked (
  number      INTEGER PRIMARY KEY,
  deploy      TEXT NOT NULL REFERENCES deploys (id) ON DELETE CASCADE,
  who         TEXT NOT NULL,
  request_id  TEXT,
  request     TEXT NOT NULL,  -- Request.key as JSON
  at          TEXT NOT NULL
) STRICT;
CREATE INDEX asked_by_deploy ON asked (deploy);
CREATE UNIQUE INDEX one_request_id ON asked (who, request_id) WHERE request_id IS NOT NULL;

CREATE TABLE deliveries (
  id     TEXT PRIMARY KEY,
  event  TEXT NOT NULL,
  said   TEXT NOT NULL,
  at     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_by_time ON deliveries (at);
