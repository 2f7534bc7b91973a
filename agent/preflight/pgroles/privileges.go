package pgroles

import (
	"context"
	"fmt"
	"strings"

	"graphvol/internal/postgres"
)

// read looks whether the role may read all data.
func (r *report) read(ctx context.Context, c *postgres.Conn) {
	if r.release < readAllData {
		r.readTables(ctx, c)
		return
	}
	var has bool
	if err := c.QueryRow(ctx, "SELECT pg_has_role($1, 'pg_read_all_data', 'USAGE')", r.role).Scan(&has); err != nil {
		r.refused(Read, r.subject(), err)
		return
	}
	if has {
		r.add(Read, r.subject(), "")
		return
	}
	role := postgres.Quote(r.role)
	grant := []string{fmt.Sprintf("GRANT pg_read_all_data TO %s;", role)}
	switch {
	case r.release >= inheritGrant:
		grant = []string{fmt.Sprintf("GRANT pg_read_all_data TO %s WITH INHERIT TRUE;", role)}
	case !r.inherit:
		grant = append(grant, fmt.Sprintf("ALTER ROLE %s INHERIT;", role))
	}
	r.add(Read, r.subject(), "role "+r.role+" doesn't have what pg_read_all_data may", grant...)
}

// readTables is for servers that have no pg_read_all_data.
func (r *report) readTables(ctx context.Context, c *postgres.Conn) {
	var schemas []string
	err := c.QueryRow(ctx, `SELECT coalesce(array_agg(DISTINCT nspname::text ORDER BY nspname::text), '{}') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
		AND NOT (has_schema_privilege($1, n.oid, 'USAGE') AND has_table_privilege($1, c.oid, 'SELECT'))`, r.role).Scan(&schemas)
	switch {
	case err != nil:
		r.refused(Read, r.subject(), err)
	case len(schemas) == 0:
		r.add(Read, r.subject(), "")
	default:
		var grants []string
		for _, s := range schemas {
			s, role := postgres.Quote(s), postgres.Quote(r.role)
			grants = append(grants, fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON ALL TABLES IN SCHEMA %s TO %s;", s, role, s, role))
		}
		r.add(Read, r.subject(), fmt.Sprintf("role %s may not read all tables of schema %s", r.role, strings.Join(schemas, ", ")), grants...)
	}
}

// backupFunctions are those that begin and end a backup.
func backupFunctions(release int) []string {
	if release >= backupStart {
		return []string{"pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"}
	}
	return []string{"pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"}
}

// backup looks whether the role may call the functions of backups. Each database has privileges of its own for them.
func (r *report) backup(ctx context.Context, c *postgres.Conn) {
	var missing, grants []string
	for _, f := range backupFunctions(r.release) {
		var may bool
		if err := c.QueryRow(ctx, "SELECT has_function_privilege($1, $2, 'EXECUTE')", r.role, "pg_catalog."+f).Scan(&may); err != nil {
			r.refused(Backup, r.subject(), err)
			return
		}
		if !may {
			missing = append(missing, f)
			grants = append(grants, fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_catalog.%s TO %s;", f, postgres.Quote(r.role)))
		}
	}
	if missing == nil {
		r.add(Backup, r.subject(), "")
		return
	}
	r.add(Backup, r.subject(), fmt.Sprintf("role %s may not call %s in database %s", r.role, strings.Join(missing, " and "), r.place.Database), grants...)
}
