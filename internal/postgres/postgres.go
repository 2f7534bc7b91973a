// Package postgres asks PostgreSQL servers a few questions, with bounds, and says what would make a refused one work.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// MaxValue is the greatest length of a value that is read, in bytes.
const MaxValue = 16 << 20

// closing is how long the goodbye to a server may take.
const closing = time.Second

// Conn is a connection to a server. It is for one goroutine at a time.
type Conn struct {
	*pgx.Conn
	where string
}

// Connect connects to the server that a connection string names, before ctx's deadline. What the string leaves out the environment says, as for all programs: PGPASSFILE,
// PGPASSWORD and the like. An error that the server has given, or that says it isn't there, is an Error.
func Connect(ctx context.Context, dsn string) (*Conn, error) {
	cfg, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // without prepared statements, which poolers don't like
	cfg.MaxProtocolMessageBodyLen = MaxValue + 64<<10
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "graphvol"
	}
	c := &Conn{where: where(cfg.Host, cfg.Port)}
	if c.Conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
		return nil, explainConnect(ctx, err, c.where, cfg.User, cfg.Database)
	}
	return c, nil
}

func parse(dsn string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("the dsn can't be used: %s; write it as host=/run/postgresql user=backup dbname=graph", oneLine(err))
	}
	if cfg.Database == "" {
		cfg.Database = cfg.User // as the server takes it
	}
	return cfg, nil
}

// Place is what a connection string names.
type Place struct {
	Host     string // or the directory of a socket
	Port     int
	Database string
	Role     string
}

// ParseDSN reads a connection string, and what the environment says beside it.
func ParseDSN(dsn string) (Place, error) {
	cfg, err := parse(dsn)
	if err != nil {
		return Place{}, err
	}
	return Place{cfg.Host, int(cfg.Port), cfg.Database, cfg.User}, nil
}

func where(host string, port uint16) string {
	if filepath.IsAbs(host) {
		return filepath.Join(host, fmt.Sprintf(".s.PGSQL.%d", port))
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// Close ends the connection. Where the server still has a query, it is asked to end that; if it doesn't answer, Close returns after a second, and what is left ends by itself.
func (c *Conn) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	_ = c.Conn.Close(ctx) // what was asked for is there
	select {
	case <-c.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// Value gives the one value of a query, as text. It can change nothing, and the server ends it at ctx's deadline, which must be set. An error of the server is an Error.
// The connection may be closed afterwards.
func (c *Conn) Value(ctx context.Context, query string) ([]byte, error) {
	v, err := c.value(ctx, query)
	if err == nil {
		return v, nil
	}
	var tooLong *pgproto3.ExceededMaxBodyLenErr
	if errors.As(err, &tooLong) {
		err = errTooLong
	}
	return nil, c.explainQuery(ctx, err)
}

var errTooLong = fmt.Errorf("the query's value has more than %d bytes", MaxValue)

func (c *Conn) value(ctx context.Context, query string) ([]byte, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("postgres: a query without a deadline")
	}
	tx, err := c.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(ctx) }() // there is nothing to keep, and the connection may be closed
	// Of the transaction alone, so that a pooler's connection has it no longer.
	left := max(time.Until(deadline).Milliseconds(), 1)
	if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", left)); err != nil {
		return nil, err
	}
	once, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := tx.Query(once, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return only(rows, cancel)
}

// only gives the value of rows that have to be one with one column. It cancels the query rather than read rows that nobody wants.
func only(rows pgx.Rows, cancel func()) ([]byte, error) {
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return nil, err
		}
		return nil, errors.New("the query gives no row, and must give one")
	}
	if n := len(rows.FieldDescriptions()); n != 1 {
		cancel()
		return nil, fmt.Errorf("the query gives %d columns, and must give one", n)
	}
	var v *string
	if err := rows.Scan(&v); err != nil {
		return nil, err
	}
	switch {
	case rows.Next():
		cancel()
		return nil, errors.New("the query gives more than one row")
	case rows.Err() != nil:
		return nil, rows.Err()
	case v == nil:
		return nil, errors.New("the query's value is NULL")
	case len(*v) > MaxValue:
		return nil, errTooLong
	}
	return []byte(*v), nil
}

// Quote writes a name as SQL needs it.
func Quote(name string) string { return pgx.Identifier{name}.Sanitize() }
