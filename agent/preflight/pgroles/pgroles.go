// Package pgroles looks whether the role that makes backups of a PostgreSQL server may do what it must, and says which command lets it.
package pgroles

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
	"graphvol/internal/postgres"
)

// Timeout is how long all that is looked at in one server may take.
const Timeout = 10 * time.Second

// Names of the rows, in their order.
const (
	Reach   = "postgres-reach"   // the server answers, and lets the dsn's role in
	Version = "postgres-version" // its release, which says what is needed
	Role    = "postgres-role"    // the role exists
	Login   = "postgres-login"   // it may log in, and connect to the dsn's database
	Read    = "postgres-read"    // it may read all data
	Backup  = "postgres-backup"  // it may call the functions that begin and end a backup
	Query   = "postgres-query"   // the dsn's role may make the query, and it gives one value
)

// Releases in which something changed, as server_version_num counts.
const (
	readAllData  = 140000 // has the role pg_read_all_data
	backupStart  = 150000 // has pg_backup_start in place of pg_start_backup
	inheritGrant = 160000 // grants are inherited one by one
)

// Check looks at a server as the configuration names it, and gives a row for each thing that was looked at. It changes nothing. What can't be looked at because of an earlier row has
// none. A fix is a command for somebody who is a superuser of the server; all fixes of a check can be run one after another. It is safe for concurrent use.
func Check(ctx context.Context, pg config.Postgres) []check.Row {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	place, err := postgres.ParseDSN(pg.DSN)
	if err != nil {
		return []check.Row{check.Bad(Reach, "the dsn", err.Error(), "")}
	}
	r := &report{place: place, role: pg.Role}
	if r.role == "" {
		r.role = place.Role
	}
	c, err := postgres.Connect(ctx, pg.DSN)
	if err != nil {
		r.refused(Reach, r.server(), err)
		return r.rows
	}
	defer c.Close()
	r.add(Reach, r.server(), "")
	if r.version(ctx, c) && r.exists(ctx, c) {
		r.login(ctx, c)
		r.read(ctx, c)
		r.backup(ctx, c)
	}
	if pg.Query != "" {
		_, err := c.Value(ctx, pg.Query)
		r.refused(Query, "role "+place.Role+", "+r.server(), err)
	}
	return r.rows
}

// report is a check under way.
type report struct {
	place   postgres.Place
	role    string // the one that is looked at
	release int    // of the server, as server_version_num counts
	inherit bool   // whether the role has what its roles may
	rows    []check.Row
}

func (r *report) server() string {
	return fmt.Sprintf("database %s at %s port %d", r.place.Database, r.place.Host, r.place.Port)
}

func (r *report) subject() string { return "role " + r.role + ", " + r.server() }

// add adds a row: a good one if there is no problem.
func (r *report) add(name, subject, problem string, sql ...string) {
	if problem == "" {
		r.rows = append(r.rows, check.Good(name, subject))
		return
	}
	r.rows = append(r.rows, check.Bad(name, subject, problem, r.psql(sql...)))
}

// psql is the command that runs statements in the database.
func (r *report) psql(sql ...string) string {
	if len(sql) == 0 {
		return ""
	}
	return fmt.Sprintf("psql -h %s -p %d -d %s -c %s", check.Quote(r.place.Host), r.place.Port, check.Quote(r.place.Database), check.Quote(strings.Join(sql, " ")))
}

// refused adds a row for what the server has said to something.
func (r *report) refused(name, subject string, err error) {
	var e *postgres.Error
	switch {
	case err == nil:
		r.add(name, subject, "")
	case errors.As(err, &e) && strings.HasSuffix(e.Fix, ";"):
		r.add(name, subject, e.Problem, e.Fix)
	default:
		r.add(name, subject, err.Error())
	}
}

func (r *report) version(ctx context.Context, c *postgres.Conn) bool {
	var name string
	err := c.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, current_setting('server_version')").Scan(&r.release, &name)
	if err != nil {
		r.refused(Version, r.server(), err)
		return false
	}
	r.add(Version, "PostgreSQL "+name+", "+r.server(), "")
	return true
}

func (r *report) exists(ctx context.Context, c *postgres.Conn) bool {
	var there bool
	err := c.QueryRow(ctx, "SELECT count(*) > 0, coalesce(bool_or(rolinherit), false) FROM pg_roles WHERE rolname = $1", r.role).Scan(&there, &r.inherit)
	switch {
	case err != nil:
		r.refused(Role, r.subject(), err)
	case !there:
		r.add(Role, r.subject(), "there is no role "+r.role, "CREATE ROLE "+postgres.Quote(r.role)+" LOGIN;")
	default:
		r.add(Role, r.subject(), "")
	}
	return err == nil && there
}

func (r *report) login(ctx context.Context, c *postgres.Conn) {
	var may, connect bool
	err := c.QueryRow(ctx, "SELECT rolcanlogin, has_database_privilege(oid, current_database(), 'CONNECT') FROM pg_roles WHERE rolname = $1", r.role).Scan(&may, &connect)
	var problems, fixes []string
	if !may {
		problems, fixes = append(problems, "log in"), append(fixes, fmt.Sprintf("ALTER ROLE %s LOGIN;", postgres.Quote(r.role)))
	}
	if !connect {
		problems, fixes = append(problems, "connect to database "+r.place.Database), append(fixes, fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s;", postgres.Quote(r.place.Database), postgres.Quote(r.role)))
	}
	switch {
	case err != nil:
		r.refused(Login, r.subject(), err)
	case problems != nil:
		r.add(Login, r.subject(), fmt.Sprintf("role %s may not %s", r.role, strings.Join(problems, " nor ")), fixes...)
	default:
		r.add(Login, r.subject(), "")
	}
}
