package pgroles

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
	"graphvol/internal/postgres"
	"graphvol/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mend runs every fix, as an administrator would, and gives the names of the rows that had one. It fails if a row is bad and has none.
func mend(t *testing.T, s *pgtest.Server, rows []check.Row) string {
	t.Helper()
	var names []string
	for _, r := range check.Failed(rows) {
		if strings.ContainsAny(r.String(), "\n") || r.Problem == "" {
			t.Errorf("%q isn't a line", r)
		}
		if r.Fix == "" {
			t.Fatalf("nothing mends it: %s", r)
		}
		s.Shell(t, r.Fix)
		names = append(names, r.Name)
	}
	return strings.Join(names, " ")
}

func whole(t *testing.T, rows []check.Row, want ...string) {
	t.Helper()
	var names []string
	for _, r := range rows {
		names = append(names, r.Name)
		if !r.OK {
			t.Errorf("not mended: %s", r)
		}
	}
	if got, want := strings.Join(names, " "), strings.Join(want, " "); got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
}

var all = []string{Reach, Version, Role, Login, Read, Backup, Query}

const query = `SELECT "Meta".stamp(count(*)::text) FROM "Meta"."Types"`

const tables = `CREATE SCHEMA "Meta"; CREATE TABLE "Meta"."Types" (name text); CREATE FUNCTION "Meta".stamp(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$;
	CREATE TABLE other (a int); CREATE SCHEMA empty`

// TestFromNothing begins with a server that knows no such role, and ends with a role that can make a backup.
func TestFromNothing(t *testing.T) {
	s := pgtest.Start(t)
	s.Exec(t, tables)
	for _, role := range []string{"backup", `it's "Bob"`} {
		dsn := s.DSN("'" + strings.ReplaceAll(role, "'", `\'`) + "'")
		cfg := config.Postgres{DSN: dsn, Query: query}
		if got := mend(t, s, Check(t.Context(), cfg)); got != Reach {
			t.Errorf("%s: %s was mended first", role, got)
		}
		if got, want := mend(t, s, Check(t.Context(), cfg)), strings.Join([]string{Read, Backup, Query}, " "); got != want {
			t.Errorf("%s: %s was mended then, want %s", role, got, want)
		}
		for range 2 { // what the query needs besides tables
			if got := mend(t, s, Check(t.Context(), cfg)); got != "" && got != Query {
				t.Errorf("%s: %s was mended at last", role, got)
			}
		}
		whole(t, Check(t.Context(), cfg), all...)
		backUp(t, dsn)
	}
}

// backUp does what the role is for.
func backUp(t *testing.T, dsn string) {
	t.Helper()
	c, err := postgres.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begin, end := "pg_backup_start('test', true)", "pg_backup_stop(false)"
	if release(t, c) < backupStart {
		begin, end = "pg_start_backup('test', true, false)", "pg_stop_backup(false, false)"
	}
	for _, sql := range []string{"SELECT " + begin, `SELECT * FROM "Meta"."Types"`, "SELECT * FROM other", "SELECT " + end} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func release(t *testing.T, c *postgres.Conn) (n int) {
	t.Helper()
	if err := c.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

type broken struct {
	cfg           config.Postgres
	sql, row, fix string
}

// breaks are those that the release of the server has. Watch looks as somebody else, self as the role.
func breaks(n int, watch, self config.Postgres) []broken {
	begin, end := backupFunctions(n)[0], backupFunctions(n)[1]
	out := []broken{
		{watch, "ALTER ROLE backup NOLOGIN", Login, `ALTER ROLE "backup" LOGIN;`},
		{self, "ALTER ROLE backup NOLOGIN", Reach, `ALTER ROLE "backup" LOGIN;`},
		{watch, "REVOKE CONNECT ON DATABASE postgres FROM backup", Login, `GRANT CONNECT ON DATABASE "postgres" TO "backup";`},
		{self, "REVOKE CONNECT ON DATABASE postgres FROM backup", Reach, `GRANT CONNECT ON DATABASE "postgres" TO "backup";`},
		{watch, "REVOKE CONNECT ON DATABASE postgres FROM backup; ALTER ROLE backup NOLOGIN", Login, `ALTER ROLE "backup" LOGIN; GRANT CONNECT ON DATABASE "postgres" TO "backup";`},
		{self, "REVOKE EXECUTE ON FUNCTION " + begin + " FROM backup", Backup, "GRANT EXECUTE ON FUNCTION pg_catalog." + begin + ` TO "backup";`},
		{watch, "REVOKE EXECUTE ON FUNCTION " + end + " FROM backup", Backup, "GRANT EXECUTE ON FUNCTION pg_catalog." + end + ` TO "backup";`},
		{self, `REVOKE EXECUTE ON FUNCTION "Meta".stamp FROM public, backup`, Query, `GRANT EXECUTE ON FUNCTION "Meta".stamp(text) TO "backup";`},
	}
	if n < readAllData {
		return append(out, broken{watch, "REVOKE SELECT ON other FROM backup", Read, `GRANT SELECT ON ALL TABLES IN SCHEMA "public" TO "backup"`})
	}
	return append(out, broken{watch, "REVOKE pg_read_all_data FROM backup", Read, `GRANT pg_read_all_data TO "backup"`},
		// A member that may nothing by that.
		broken{watch, "REVOKE pg_read_all_data FROM backup; ALTER ROLE backup NOINHERIT; GRANT pg_read_all_data TO backup", Read, `GRANT pg_read_all_data TO "backup"`})
}

// TestEachBreak breaks one thing after another. Exactly its row is bad, and its fix mends it.
func TestEachBreak(t *testing.T) {
	s := pgtest.Start(t)
	s.Exec(t, tables+`; CREATE ROLE backup LOGIN; REVOKE CONNECT ON DATABASE postgres FROM public`)
	watch := config.Postgres{DSN: s.DSN(pgtest.Superuser), Role: "backup", Query: query}
	self := config.Postgres{DSN: s.DSN("backup"), Query: query}
	for range 4 {
		mend(t, s, Check(t.Context(), watch))
		mend(t, s, Check(t.Context(), self))
	}
	whole(t, Check(t.Context(), watch), all...)
	whole(t, Check(t.Context(), self), all...)
	c, err := postgres.Connect(t.Context(), watch.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, c := range breaks(release(t, c), watch, self) {
		s.Exec(t, c.sql)
		rows := check.Failed(Check(t.Context(), c.cfg))
		if len(rows) != 1 || rows[0].Name != c.row || !strings.Contains(rows[0].Fix, c.fix) {
			t.Errorf("%s: %v, want %s", c.sql, rows, c.row)
		}
		mend(t, s, rows)
		whole(t, Check(t.Context(), c.cfg), all...)
		backUp(t, self.DSN)
	}
	rows := Check(t.Context(), config.Postgres{DSN: s.DSN(pgtest.Superuser), Role: "nobody"})
	if got := mend(t, s, rows); got != Role {
		t.Errorf("without the role: %v", rows)
	}
	whole(t, Check(t.Context(), config.Postgres{DSN: s.DSN(pgtest.Superuser)}), all[:6]...)
}

// TestOlderServers has what is done for releases before 14 run on the one that is here.
func TestOlderServers(t *testing.T) {
	s := pgtest.Start(t)
	s.Exec(t, tables+"; CREATE ROLE backup LOGIN; CREATE VIEW v AS SELECT 1; CREATE MATERIALIZED VIEW mv AS SELECT 1")
	place, err := postgres.ParseDSN(s.DSN("backup"))
	if err != nil {
		t.Fatal(err)
	}
	look := func() []check.Row {
		c, err := postgres.Connect(t.Context(), s.DSN("backup"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r := &report{place: place, role: "backup", release: readAllData - 1}
		r.read(t.Context(), c)
		return r.rows
	}
	rows := look()
	if got := mend(t, s, rows); got != Read || !strings.Contains(rows[0].Problem, "schema Meta, public") {
		t.Errorf("%v", rows)
	}
	whole(t, look(), Read)
	c, err := postgres.Connect(t.Context(), s.DSN("backup"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, table := range []string{`"Meta"."Types"`, "other", "v", "mv"} {
		if _, err := c.Exec(t.Context(), "SELECT * FROM "+table); err != nil {
			t.Errorf("%s: %v", table, err)
		}
	}
	if got := fmt.Sprint(backupFunctions(backupStart-1), backupFunctions(backupStart)); got != "[pg_start_backup(text, boolean, boolean) pg_stop_backup(boolean, boolean)] [pg_backup_start(text, boolean) pg_backup_stop(boolean)]" {
		t.Error(got)
	}
}

func TestUnreachable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for dsn, want := range map[string]string{
		"host=" + t.TempDir() + " user=backup": "can't be reached: connect: no such file or directory; to mend it: start it (systemctl start postgresql)",
		"port=many":                            "the dsn can't be used",
	} {
		rows := Check(ctx, config.Postgres{DSN: dsn, Query: "SELECT 1"})
		if len(rows) != 1 || rows[0].OK || rows[0].Name != Reach || !strings.Contains(rows[0].Problem, want) || rows[0].Fix != "" {
			t.Errorf("%v, want %s", rows, want)
		}
	}
	s := pgtest.Start(t)
	rows := Check(ctx, config.Postgres{DSN: s.DSN(pgtest.Superuser), Query: "SELECT 1 WHERE false"})
	if failed := check.Failed(rows); len(failed) != 1 || failed[0].Name != Query || !strings.HasSuffix(failed[0].Problem, "the query gives no row, and must give one") {
		t.Errorf("%v", rows)
	}
}
