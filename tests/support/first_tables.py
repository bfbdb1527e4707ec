"""The tables, rows and triggers of the first design, as a database may still hold them."""

# As original-go-design.md has them; only the triggers' names are ours.
GO_TABLES = """
CREATE TABLE plugins (
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

CREATE TABLE plugin_endpoints (
    id BIGSERIAL PRIMARY KEY,
    plugin_id VARCHAR(255) NOT NULL REFERENCES plugins(id) ON DELETE CASCADE,
    method VARCHAR(10) NOT NULL,
    path VARCHAR(500) NOT NULL,
    handler VARCHAR(255) NOT NULL,
    type VARCHAR(50) NOT NULL DEFAULT 'REST',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


GO_ROWS = """
INSERT INTO plugins (id, name, description, version, author, type, binary_path, source_path, status)
VALUES
    ('uuid-1', 'powertable', 'A plugin', '0.1.0', 'Benana Team', 'dynamic',
     '/abs/path/bin/plugins/powertable.so', '../powertable', 'active'),
    ('uuid-2', 'My-Plugin', NULL, '1', NULL, 'static', NULL, '../My-Plugin', 'inactive'),
    ('uuid-3', 'other', NULL, '1', NULL, 'dynamic', NULL, '../other', 'loaded');
INSERT INTO plugin_endpoints (plugin_id, method, path, handler)
VALUES ('uuid-1', 'GET', '/powertable', 'handleGet');
"""


GO_TRIGGERS = """
CREATE OR REPLACE FUNCTION notify_plugin_change()
RETURNS TRIGGER AS $$
DECLARE payload JSON;
BEGIN
    -- Build notification payload
    payload = json_build_object(
        'operation', TG_OP,
        'table', TG_TABLE_NAME,
        'id', NEW.id,
        'name', NEW.name,
        'new_data', row_to_json(NEW),
        'timestamp', extract(epoch from now())
    );

    -- Send notification
    PERFORM pg_notify('plugin_changes', payload::text);
    RETURN NEW;
END;
$$ LANGUAGE plpgsql;
CREATE TRIGGER "Plugins Changed" BEFORE INSERT OR UPDATE OR DELETE ON plugins
    FOR EACH ROW EXECUTE FUNCTION notify_plugin_change();
CREATE TRIGGER "Endpoints Changed" BEFORE INSERT OR UPDATE OR DELETE ON plugin_endpoints
    FOR EACH ROW EXECUTE FUNCTION notify_plugin_change();
"""
