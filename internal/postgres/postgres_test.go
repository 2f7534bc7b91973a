package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"graphvol/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// value connects and asks.
func value(t *testing.T, dsn, query string) (string, error) {
	t.Helper()
	ctx := bounded(t, time.Minute)
	c, err := Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer c.Close()
	v, err := c.Value(ctx, query)
	return string(v), err
}

func TestValue(t *testing.T) {
	s := pgtest.Start(t)
	s.Exec(t, `CREATE TABLE t (a int); CREATE FUNCTION slow() RETURNS text LANGUAGE sql AS $$ SELECT pg_sleep(1000)::text $$`)
	for query, want := range map[string]string{
		"SELECT 'a b'::text":                              "a b",
		"SELECT '{\"b\": 1, \"a\": 2}'::json":             `{"b": 1, "a": 2}`,
		"SELECT '{\"b\": 1, \"a\": 2}'::jsonb":            `{"a": 2, "b": 1}`,
		"SELECT ''":                                       "",
		"SELECT current_setting('transaction_read_only')": "on",
		"SELECT current_setting('application_name');":     "graphvol",
		"SELECT setting::int BETWEEN 1 AND 60000 FROM pg_settings WHERE name = 'statement_timeout'": "t",
		"SELECT repeat('x', 1 << 24)": strings.Repeat("x", MaxValue),
	} {
		if got, err := value(t, s.DSN(pgtest.Superuser), query); err != nil || got != want {
			t.Errorf("%s: %.20q, %v, want %.20q", query, got, err, want)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for query, want := range map[string]string{
		"SELECT 1, generate_series(1, 1000000000000)": "the query gives 2 columns, and must give one",
		"SELECT":                                   "the query gives 0 columns, and must give one",
		"SELECT 1 WHERE false":                     "the query gives no row, and must give one",
		"SELECT generate_series(1, 2)":             "the query gives more than one row",
		"SELECT generate_series(1, 1000000000000)": "the query gives more than one row",
		"SELECT NULL::text":                        "the query's value is NULL",
		"SELECT repeat('x', (1 << 24) + 1)":        "the query's value has more than 16777216 bytes",
		"SELECT repeat('x', 1 << 27)":              "the query's value has more than 16777216 bytes",
		"SELECT 1; SELECT 2":                       "refuses the query: cannot insert multiple commands into a prepared statement (42601)",
		"SELEC":                                    `refuses the query: syntax error at or near "SELEC" (42601)`,
		"SELECT * FROM nowhere":                    `refuses the query: relation "nowhere" does not exist (42P01)`,
		"INSERT INTO t VALUES (1) RETURNING 1":     "refuses the query: cannot execute INSERT in a read-only transaction (25006); to mend it: write a query that only reads",
	} {
		if got, err := value(t, s.DSN(pgtest.Superuser), query); err == nil || !strings.HasPrefix(err.Error(), "PostgreSQL at "+s.Dir) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %.20q, %v, want %q", query, got, err, want)
		}
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 6*MaxValue {
		t.Errorf("%d bytes were allocated: what is too long was read", after.TotalAlloc-before.TotalAlloc)
	}
	c, err := Connect(bounded(t, time.Minute), s.DSN(pgtest.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if v, err := c.Value(bounded(t, time.Minute), "SELECT 'again'"); err != nil || string(v) != "again" {
			t.Errorf("%q, %v", v, err)
		}
	}
	if _, err := c.Value(bounded(t, time.Second), "SELECT slow()"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "didn't answer the query in time: ") {
		t.Errorf("a slow query: %v", err)
	}
	running(t, s, "slow()", 0)
}

// running waits until so many queries with this text run in the server.
func running(t *testing.T, s *pgtest.Server, text string, want int) {
	t.Helper()
	ctx := bounded(t, 20*time.Second)
	c, err := Connect(ctx, s.DSN(pgtest.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		var n int
		if err := c.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND strpos(query, $1) > 0", text).Scan(&n); err != nil {
			t.Fatalf("%d queries run, want %d: %v", n, want, err)
		}
		if n == want {
			return
		}
	}
}

// TestMends runs what an error says until the query works.
func TestMends(t *testing.T) {
	s := pgtest.Start(t)
	s.Exec(t, `CREATE SCHEMA "Meta"; CREATE TABLE "Meta"."Types" (name text); CREATE TABLE nodes (name text); CREATE SCHEMA other; CREATE TABLE other.nodes (name text);
		CREATE VIEW names AS SELECT name FROM "Meta"."Types"; CREATE FUNCTION stamp(text, int) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$;
		CREATE FUNCTION stamp() RETURNS text LANGUAGE sql AS $$ SELECT ''::text $$;
		REVOKE EXECUTE ON FUNCTION stamp(text, int) FROM public; REVOKE CONNECT ON DATABASE postgres FROM public`)
	dsn := s.DSN(`'back"up'`)
	query := `SELECT stamp(count(*)::text, 1) FROM "Meta"."Types", nodes, names`
	var fixes []string
	for {
		v, err := value(t, dsn, query)
		if err == nil {
			if v != "0" {
				t.Errorf("%q", v)
			}
			break
		}
		var e *Error
		if !errors.As(err, &e) || !strings.HasSuffix(e.Fix, ";") {
			t.Fatal(err)
		}
		fixes = append(fixes, e.Fix)
		if len(fixes) > 10 {
			t.Fatalf("they don't mend it: %q", fixes)
		}
		s.Exec(t, e.Fix)
		if len(fixes) == 2 {
			s.Exec(t, `ALTER ROLE "back""up" NOLOGIN`)
		}
	}
	want := []string{
		`CREATE ROLE "back""up" LOGIN;`,
		`GRANT CONNECT ON DATABASE "postgres" TO "back""up";`,
		`ALTER ROLE "back""up" LOGIN;`,
		`GRANT USAGE ON SCHEMA "Meta" TO "back""up";`,
		`GRANT SELECT ON "Meta"."Types" TO "back""up";`,
		`GRANT SELECT ON public.nodes TO "back""up";`,
		`GRANT SELECT ON public.names TO "back""up";`,
		`GRANT EXECUTE ON FUNCTION public.stamp(text, integer) TO "back""up";`,
	}
	slices.Sort(fixes) // what is checked first is the server's matter
	slices.Sort(want)
	if !slices.Equal(fixes, want) {
		t.Errorf("the fixes were\n%s\nwant\n%s", strings.Join(fixes, "\n"), strings.Join(want, "\n"))
	}
}

// TestOtherLanguages has messages of servers that don't speak English.
func TestOtherLanguages(t *testing.T) {
	for _, c := range []struct{ code, routine, message, want string }{
		{"28000", "InitializeSessionUserId", "Rolle »a« existiert nicht", `CREATE ROLE "a" LOGIN; or, if there is that role: ALTER ROLE "a" LOGIN`},
		{"28000", "ClientAuthentication", "kein pg_hba.conf-Eintrag", "let pg_hba.conf have a line by which role a may connect, then SELECT pg_reload_conf()"},
		{"42501", "CheckMyDatabase", "keine Berechtigung für Datenbank »b«", `GRANT CONNECT ON DATABASE "b" TO "a";`},
		{"53300", "InitPostgres", "zu viele Verbindungen", ""},
	} {
		if got := mendConnect(&pgconn.PgError{Code: c.code, Routine: c.routine, Message: c.message}, "a", "b"); got != c.want {
			t.Errorf("%s: %s, want %s", c.message, got, c.want)
		}
	}
	s := pgtest.Start(t)
	c, err := Connect(t.Context(), s.DSN(pgtest.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.grant(t.Context(), &pgconn.PgError{Code: "42501", Message: "keine Berechtigung für Tabelle a"}); !strings.HasPrefix(got, `let role "postgres" read what the query needs: GRANT SELECT ON TABLE`) {
		t.Error(got)
	}
}

func TestConnectFails(t *testing.T) {
	s := pgtest.Start(t)
	s.Exec(t, "CREATE ROLE other LOGIN; SET password_encryption = 'scram-sha-256'; CREATE ROLE secret LOGIN PASSWORD 'right'")
	s.Access(t, "local all secret scram-sha-256")
	t.Setenv("PGPASSWORD", "wrong")
	closed := listener(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for dsn, want := range map[string]string{
		s.DSN("other"):                         "PostgreSQL at " + s.Dir + "/.s.PGSQL.5432 refuses role other in database postgres: no pg_hba.conf entry for host \"[local]\", user \"other\", ",
		s.DSN("other") + " application_name=x": " (28000); to mend it: let pg_hba.conf have a line by which role other may connect, then SELECT pg_reload_conf()",
		s.DSN("secret"):                        "password authentication failed for user \"secret\" (28P01); to mend it: write the right password into the file that PGPASSFILE names",
		s.DSN("postgres") + " dbname=nowhere":  "database \"nowhere\" does not exist (3D000); to mend it: write the right dbname into the dsn, or CREATE DATABASE \"nowhere\"",
		"host=" + s.Dir + " user=other":        "refuses role other in database other: ",
		"host=" + t.TempDir():                  "can't be reached: connect: no such file or directory; to mend it: start it (systemctl start postgresql), or write its address into the dsn",
		"postgres://" + closed.Addr().String() + "/x?sslmode=disable": "PostgreSQL at " + closed.Addr().String() + " can't be reached: connect: connection refused",
		"postgres://" + closed.Addr().String() + "/x":                 "can't be reached: connect: connection refused",
		"postgres://a:hidden@h:port/x":                                "the dsn can't be used: ",
		"host=h password=hidden port=always":                          "the dsn can't be used: ",
	} {
		_, err := value(t, dsn, "SELECT 1")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want %q", dsn, err, want)
		}
	}
	t.Setenv("PGPASSWORD", "right")
	if _, err := value(t, s.DSN("secret"), "SELECT 1::text"); err != nil {
		t.Error(err)
	}
	s.Stop()
	if _, err := value(t, s.DSN("postgres"), "SELECT 1"); err == nil || !strings.Contains(err.Error(), "start it") {
		t.Errorf("a stopped server: %v", err)
	}
	s.Restart(t)
	if _, err := value(t, s.DSN("postgres"), "SELECT 1::text"); err != nil {
		t.Error(err)
	}
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // closed already, in some tests
	return l
}

// TestCutOff has a network that delivers nothing any more, in the middle of a query.
func TestCutOff(t *testing.T) {
	s := pgtest.Start(t)
	l := listener(t)
	var open []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			open = append(open, client)
			if len(open) > 1 {
				continue // nobody answers the request to end the query
			}
			server, err := net.Dial("unix", s.Dir+"/.s.PGSQL.5432")
			if err != nil {
				t.Error(err)
				return
			}
			open = append(open, server)
			go func() { _, _ = io.Copy(server, client) }()
			go func() { _, _ = io.Copy(client, server) }()
		}
	}()
	c, err := Connect(bounded(t, time.Minute), "postgres://postgres@"+l.Addr().String()+"/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := c.Value(bounded(t, 300*time.Millisecond), "SELECT pg_sleep(3)"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	c.Close()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-done
	for _, conn := range open {
		_ = conn.Close() // some are closed already
	}
	<-c.PgConn().CleanupDone()
}

// TestHanging has a server that takes connections and says nothing.
func TestHanging(t *testing.T) {
	l := listener(t)
	begin := time.Now()
	_, err := Connect(bounded(t, 200*time.Millisecond), "postgres://"+l.Addr().String()+"/x")
	if err == nil || !strings.Contains(err.Error(), "didn't answer in time") {
		t.Error(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := Connect(ctx, "postgres://"+l.Addr().String()+"/x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
}
