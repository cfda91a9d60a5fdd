-- Messages that wait until their channel has taken them.
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY,
  body TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  since REAL NOT NULL,
  due REAL NOT NULL
) STRICT;
