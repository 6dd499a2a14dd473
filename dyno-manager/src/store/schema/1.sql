-- Ids are UUIDs as text, times are microseconds since the epoch.

CREATE TABLE apps (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    maintenance INTEGER NOT NULL CHECK (maintenance IN (0, 1)),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE slugs (
    id            TEXT PRIMARY KEY,
    app_id        TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    sha256        TEXT NOT NULL,
    size          INTEGER NOT NULL,
    process_types TEXT NOT NULL, -- JSON object: type to command
    buildpack     TEXT NOT NULL,
    stack         TEXT NOT NULL,
    source_commit TEXT,
    created_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX slugs_of_app ON slugs (app_id);
CREATE INDEX slugs_by_image ON slugs (sha256);

CREATE TABLE releases (
    id          TEXT PRIMARY KEY,
    app_id      TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    version     INTEGER NOT NULL CHECK (version > 0),
    description TEXT NOT NULL,
    user        TEXT NOT NULL,
    slug_id     TEXT REFERENCES slugs (id),
    config      TEXT NOT NULL, -- JSON object: name to value
    status      TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    created_at  INTEGER NOT NULL,
    UNIQUE (app_id, version)
) STRICT;
CREATE INDEX releases_of_slug ON releases (slug_id);
CREATE UNIQUE INDEX one_pending_release ON releases (app_id) WHERE status = 'pending';

-- Types that the current slug does not declare keep their row.
CREATE TABLE formation (
    id           TEXT PRIMARY KEY,
    app_id       TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    process_type TEXT NOT NULL,
    quantity     INTEGER NOT NULL CHECK (quantity >= 0),
    size         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (app_id, process_type)
) STRICT;

CREATE TABLE builds (
    id            TEXT PRIMARY KEY,
    app_id        TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    status        TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    slug_id       TEXT REFERENCES slugs (id),
    release_id    TEXT REFERENCES releases (id),
    error         TEXT,
    egress        TEXT NOT NULL,
    source_commit TEXT,
    source_sha256 TEXT NOT NULL,
    user          TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX builds_of_app ON builds (app_id);
CREATE INDEX builds_of_slug ON builds (slug_id);
CREATE INDEX builds_of_release ON builds (release_id);
CREATE UNIQUE INDEX one_pending_build ON builds (app_id) WHERE status = 'pending';

-- Numbers given out per app: `run` for one-off dynos.
CREATE TABLE counters (
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name   TEXT NOT NULL,
    value  INTEGER NOT NULL,
    PRIMARY KEY (app_id, name)
) STRICT;
