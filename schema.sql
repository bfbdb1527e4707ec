-- The tables of Benana, and the trigger that tells every process of a change.
--
-- Idempotent: it may be applied again and again, also to a database that holds the two tables of
-- the Go design with rows in them; those rows are kept.

CREATE TABLE IF NOT EXISTS plugins (
    id VARCHAR(255) PRIMARY KEY,
    name VARCHAR(255) NOT NULL UNIQUE,
    description TEXT,
    version VARCHAR(100) NOT NULL,
    author VARCHAR(255),
    type VARCHAR(100) NOT NULL DEFAULT 'static',
    path VARCHAR(500),
    binary_path VARCHAR(500),
    source_path VARCHAR(500),
    status VARCHAR(50) NOT NULL DEFAULT 'active',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS plugin_endpoints (
    id BIGSERIAL PRIMARY KEY,
    plugin_id VARCHAR(255) NOT NULL REFERENCES plugins(id) ON DELETE CASCADE,
    method VARCHAR(10) NOT NULL,
    path VARCHAR(500) NOT NULL,
    handler VARCHAR(255) NOT NULL,
    type VARCHAR(50) NOT NULL DEFAULT 'REST',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- What the Go design did not have.
--   generation     grows whenever what is served changes; (id, generation) decides what a process
--                  loads, never a timestamp.
--   source_digest  the source that binary_path was compiled from; NULL asks a publishing host to
--                  compile source_path.
--   error          what is wrong with the newest source while an older one serves.
ALTER TABLE plugins ADD COLUMN IF NOT EXISTS generation BIGINT NOT NULL DEFAULT 1;
ALTER TABLE plugins ADD COLUMN IF NOT EXISTS source_digest VARCHAR(32);
ALTER TABLE plugins ADD COLUMN IF NOT EXISTS error JSONB;

-- So that `INSERT INTO plugins (name, source_path) VALUES (…)` is enough.
ALTER TABLE plugins ALTER COLUMN id SET DEFAULT gen_random_uuid()::text;
ALTER TABLE plugins ALTER COLUMN version SET DEFAULT '';

-- NOT VALID: rows that are there already are kept as they are.
ALTER TABLE plugins DROP CONSTRAINT IF EXISTS plugins_name_check;
ALTER TABLE plugins ADD CONSTRAINT plugins_name_check
    CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$') NOT VALID;
ALTER TABLE plugins DROP CONSTRAINT IF EXISTS plugins_status_check;
ALTER TABLE plugins ADD CONSTRAINT plugins_status_check
    CHECK (status IN ('active', 'inactive')) NOT VALID;

CREATE INDEX IF NOT EXISTS plugin_endpoints_plugin_id ON plugin_endpoints (plugin_id);
CREATE INDEX IF NOT EXISTS plugin_endpoints_segment
    ON plugin_endpoints (split_part(ltrim(path, '/'), '/', 1));

-- Every archive that may be served, so that a host without the source folder loads the same bytes.
CREATE TABLE IF NOT EXISTS plugin_versions (
    plugin_name VARCHAR(255) NOT NULL,
    source_digest VARCHAR(32) NOT NULL,
    archive BYTEA NOT NULL,
    archive_sha256 CHAR(64) NOT NULL,
    metadata JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (plugin_name, source_digest)
);

-- Folders that never were valid plugins, and why.
CREATE TABLE IF NOT EXISTS plugin_failures (
    name VARCHAR(255) PRIMARY KEY,
    source_path TEXT NOT NULL,
    error JSONB NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp()
);

-- The processes that serve, and what each of them runs. Nothing here notifies anybody.
--   generation  what the process runs of the plugin; NULL if nothing.
--   reconciled  the generation of the row that the process has acted on.
CREATE TABLE IF NOT EXISTS plugin_workers (
    id VARCHAR(36) PRIMARY KEY,
    host VARCHAR(255) NOT NULL,
    pid INTEGER NOT NULL,
    generations_alive INTEGER NOT NULL DEFAULT 0,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE IF NOT EXISTS plugin_loads (
    worker_id VARCHAR(36) NOT NULL REFERENCES plugin_workers(id) ON DELETE CASCADE,
    plugin_name VARCHAR(255) NOT NULL,
    plugin_id VARCHAR(255) NOT NULL,
    generation BIGINT,
    reconciled BIGINT NOT NULL,
    state VARCHAR(20) NOT NULL CHECK (state IN ('serving', 'unloaded', 'loading', 'failed')),
    error JSONB,
    milliseconds DOUBLE PRECISION,
    recorded_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (worker_id, plugin_name)
);

CREATE INDEX IF NOT EXISTS plugin_loads_plugin_name ON plugin_loads (plugin_name);

-- Under the row's lock, so that no two changes get the same generation.
CREATE OR REPLACE FUNCTION stamp_plugin_change() RETURNS TRIGGER AS $$
BEGIN
    IF OLD.* IS NOT DISTINCT FROM NEW.* THEN
        RETURN NEW;
    END IF;
    -- A status of the Go design's own: the CHECK would refuse every change of its row.
    IF NEW.status = OLD.status AND NEW.status NOT IN ('active', 'inactive') THEN
        NEW.status := 'inactive';
    END IF;
    IF NEW.source_digest IS NOT DISTINCT FROM OLD.source_digest THEN
        IF NEW.binary_path IS DISTINCT FROM OLD.binary_path THEN
            NEW.source_digest := COALESCE(
                substring(NEW.binary_path FROM '-([0-9a-f]{32})\.pyz$'), OLD.source_digest);
        ELSIF NEW.source_path IS DISTINCT FROM OLD.source_path THEN
            NEW.source_digest := NULL;
        END IF;
    END IF;
    IF (NEW.id, NEW.name, NEW.status, NEW.binary_path, NEW.generation)
        IS DISTINCT FROM (OLD.id, OLD.name, OLD.status, OLD.binary_path, OLD.generation)
    THEN
        NEW.generation := GREATEST(NEW.generation, OLD.generation + 1);
    END IF;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END;
$$ LANGUAGE plpgsql;

-- The payload is a hint: every process re-reads the row. A payload of 8,000 bytes or more would
-- fail the statement of whoever changes the row, so `new_data` is null where it would be too long.
CREATE OR REPLACE FUNCTION notify_plugin_change() RETURNS TRIGGER AS $$
DECLARE
    changed plugins;
    payload TEXT;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        payload := json_build_object(
            'operation', TG_OP, 'table', TG_TABLE_NAME, 'id', NULL, 'name', NULL,
            'new_data', NULL, 'timestamp', extract(epoch FROM clock_timestamp()));
        PERFORM pg_notify('plugin_changes', payload);
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        changed := OLD;
    ELSE
        changed := NEW;
    END IF;
    payload := json_build_object(
        'operation', TG_OP, 'table', TG_TABLE_NAME, 'id', changed.id, 'name', changed.name,
        'new_data', CASE WHEN TG_OP <> 'DELETE' THEN row_to_json(changed) END,
        'timestamp', extract(epoch FROM clock_timestamp()));
    IF octet_length(payload) >= 7900 THEN
        payload := json_build_object(
            'operation', TG_OP, 'table', TG_TABLE_NAME, 'id', changed.id, 'name', changed.name,
            'new_data', NULL, 'timestamp', extract(epoch FROM clock_timestamp()));
    END IF;
    PERFORM pg_notify('plugin_changes', payload);
    IF TG_OP = 'UPDATE' AND OLD.name <> NEW.name THEN
        PERFORM pg_notify('plugin_changes', json_build_object(
            'operation', TG_OP, 'table', TG_TABLE_NAME, 'id', OLD.id, 'name', OLD.name,
            'new_data', NULL, 'timestamp', extract(epoch FROM clock_timestamp()))::text);
    END IF;
    RETURN NULL;
END;
$$ LANGUAGE plpgsql;

-- Triggers of the Go design, whatever their names, would notify twice or fail.
DO $$
DECLARE
    found RECORD;
BEGIN
    FOR found IN
        SELECT tgname, tgrelid::regclass AS relation FROM pg_trigger
        WHERE NOT tgisinternal
            AND tgrelid IN ('plugins'::regclass, 'plugin_endpoints'::regclass)
            AND tgfoid IN ('notify_plugin_change'::regproc, 'stamp_plugin_change'::regproc)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', found.tgname, found.relation);
    END LOOP;
END;
$$;

CREATE TRIGGER plugins_stamp BEFORE UPDATE ON plugins
    FOR EACH ROW EXECUTE FUNCTION stamp_plugin_change();
CREATE TRIGGER plugins_notify_row AFTER INSERT OR DELETE ON plugins
    FOR EACH ROW EXECUTE FUNCTION notify_plugin_change();
CREATE TRIGGER plugins_notify_update AFTER UPDATE ON plugins
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION notify_plugin_change();
CREATE TRIGGER plugins_notify_truncate AFTER TRUNCATE ON plugins
    FOR EACH STATEMENT EXECUTE FUNCTION notify_plugin_change();
