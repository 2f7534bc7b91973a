package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Error is what a server has refused, or that there is none.
type Error struct {
	Problem string // what happened, to what
	Fix     string // what mends it: SQL, if it ends with a semicolon, for a superuser in the database; else a hint; empty if none is known
	cause   error
}

func (e *Error) Error() string {
	if e.Fix == "" {
		return e.Problem
	}
	return e.Problem + "; to mend it: " + e.Fix
}

// Unwrap gives the error that the server, or the network, has given.
func (e *Error) Unwrap() error { return e.cause }

// The codes of errors that can be mended; PostgreSQL's documentation, appendix A.
const (
	invalidAuthorization = "28000"
	invalidPassword      = "28P01"
	noDatabase           = "3D000"
	noPrivilege          = "42501"
	cancelled            = "57014"
	readOnly             = "25006"
)

func explainConnect(ctx context.Context, err error, where, role, database string) error {
	e := &Error{Problem: fmt.Sprintf("PostgreSQL at %s can't be reached: %s", where, oneLine(innermost(err))), cause: err}
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		e.Problem = fmt.Sprintf("PostgreSQL at %s refuses role %s in database %s: %s", where, role, database, said(pg))
		e.Fix = mendConnect(pg, role, database)
	case errors.Is(err, context.Canceled):
	case ctx.Err() != nil:
		e.Problem = fmt.Sprintf("PostgreSQL at %s didn't answer in time", where)
		e.Fix = "see whether it hangs, and whether its address in the dsn is right"
	default:
		e.Fix = "start it (systemctl start postgresql), or write its address into the dsn"
	}
	return e
}

func mendConnect(pg *pgconn.PgError, role, database string) string {
	create, allow := fmt.Sprintf("CREATE ROLE %s LOGIN;", Quote(role)), fmt.Sprintf("ALTER ROLE %s LOGIN;", Quote(role))
	switch {
	case pg.Code == invalidAuthorization && pg.Routine == "InitializeSessionUserId":
		// There is none, or it may not log in. Code and routine are the same, and messages may be in any language.
		switch {
		case strings.Contains(pg.Message, "does not exist"):
			return create
		case strings.Contains(pg.Message, "not permitted"):
			return allow
		}
		return create + " or, if there is that role: " + strings.TrimSuffix(allow, ";")
	case pg.Code == invalidAuthorization:
		return fmt.Sprintf("let pg_hba.conf have a line by which role %s may connect, then SELECT pg_reload_conf()", role)
	case pg.Code == invalidPassword:
		return "write the right password into the file that PGPASSFILE names"
	case pg.Code == noDatabase:
		return fmt.Sprintf("write the right dbname into the dsn, or CREATE DATABASE %s", Quote(database))
	case pg.Code == noPrivilege:
		return fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s;", Quote(database), Quote(role))
	}
	return ""
}

// explainQuery is for errors of the query of a user.
func (c *Conn) explainQuery(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	switch is := errors.As(err, &pg); {
	case ctx.Err() != nil, is && pg.Code == cancelled:
		return fmt.Errorf("PostgreSQL at %s didn't answer the query in time: %w", c.where, context.DeadlineExceeded)
	case !is:
		return fmt.Errorf("PostgreSQL at %s: %s", c.where, oneLine(err))
	}
	e := &Error{Problem: fmt.Sprintf("PostgreSQL at %s refuses the query: %s", c.where, said(pg)), cause: err}
	switch pg.Code {
	case noPrivilege:
		e.Fix = c.grant(ctx, pg)
	case readOnly:
		e.Fix = "write a query that only reads"
	}
	return e
}

// denied is how servers that speak English name what was refused.
var denied = regexp.MustCompile(`^permission denied for (table|view|materialized view|foreign table|schema|function) (.+)$`)

// grant is the statement by which the role gets what it was refused.
func (c *Conn) grant(ctx context.Context, pg *pgconn.PgError) string {
	role := Quote(c.Config().User)
	m := denied.FindStringSubmatch(pg.Message)
	if m == nil {
		return "let role " + role + " read what the query needs: GRANT SELECT ON TABLE, GRANT USAGE ON SCHEMA, GRANT EXECUTE ON FUNCTION"
	}
	var privilege, find string
	switch m[1] {
	case "schema":
		return fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;", Quote(m[2]), role)
	case "function":
		privilege = "EXECUTE ON FUNCTION"
		find = `SELECT format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
			WHERE proname = $1 AND NOT has_function_privilege(p.oid, 'EXECUTE') ORDER BY pg_function_is_visible(p.oid) DESC, 1 LIMIT 1`
	default:
		privilege = "SELECT ON"
		find = `SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
			WHERE relname = $1 AND relkind IN ('r', 'v', 'm', 'f', 'p') AND NOT has_table_privilege(c.oid, 'SELECT') ORDER BY pg_table_is_visible(c.oid) DESC, 1 LIMIT 1`
	}
	object := Quote(m[2])
	var whole string
	if err := c.QueryRow(ctx, find, m[2]).Scan(&whole); err == nil {
		object = whole // with its schema, as messages don't have it
	}
	return fmt.Sprintf("GRANT %s %s TO %s;", privilege, object, role)
}

// said is a server's message, with its code by which more can be found.
func said(pg *pgconn.PgError) string { return fmt.Sprintf("%s (%s)", flat(pg.Message), pg.Code) }

// innermost drops what pgx and net have put before a network's error.
func innermost(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func oneLine(err error) string { return flat(err.Error()) }

func flat(text string) string { return strings.Join(strings.Fields(text), " ") }
