// Package embedded stores everything of tokenturn on one machine, in three files of one
// directory: an SQLite database, tokenturn.db; a key file, tokenturn.key; and the
// reserve, tokenturn.reserve, which takes an answer for which the database has no room.
//
// Any number of processes may use one directory at once, if it is on a local disk
// (SQLite's write-ahead log needs shared memory; see https://www.sqlite.org/wal.html).
// Every write is one transaction that is on the disk before it is acknowledged. The
// values of the secret store and the app credentials are encrypted under the key file,
// so the database without the key file discloses neither. Back up the database and the
// key file; if one of them is lost, every connection needs a new consent. A backup
// does not need the reserve.
package embedded

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Names of files in a store's directory; see also ReserveName.
const (
	DatabaseName = "tokenturn.db"
	KeyName      = "tokenturn.key"
)

const (
	applicationID = 0x7474726e // "ttrn", at offset 68 of the file: https://www.sqlite.org/fileformat.html
	schemaVersion = 3
	// patience is how long a call waits for another process's transaction,
	// unless its context ends earlier. Transactions take milliseconds.
	patience = 10 * time.Second
)

//go:embed schema.sql
var schema string

// upgrades has the statements that bring each earlier schema to the next one.
var upgrades = map[int]string{
	1: `CREATE TABLE deletion (connection TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
		PRAGMA user_version = 2`,
	2: `CREATE TABLE reserve (slot INTEGER PRIMARY KEY, connection TEXT NOT NULL, claim TEXT NOT NULL,
		until INTEGER NOT NULL) STRICT;
		PRAGMA user_version = 3`,
}

// Store is an open directory. It is safe for concurrent use, and so are its ports,
// which work until Close.
type Store struct {
	db      *sql.DB
	path    string // of the database
	keys    keys
	reserve reserve
}

// Open opens the store in dir. It makes the directory (mode 0700), the key file and the
// database if they are missing. It refuses a key file that other users may read, a key
// file of another database, a database with a newer schema, and any other file with one
// of these names, and changes nothing in them.
func Open(ctx context.Context, dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	s, err := open(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("opening the store in %s: %w", dir, err)
	}
	return s, nil
}

func open(ctx context.Context, dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory: %w; choose one that you may write to", err)
	}
	s := &Store{path: filepath.Join(dir, DatabaseName), reserve: reserve{filepath.Join(dir, ReserveName)}}
	// The key file is always made before the database. So a database that exists before
	// the key file is read must have a key file.
	_, err := os.Stat(s.path)
	if s.keys, err = loadKeys(filepath.Join(dir, KeyName), errors.Is(err, os.ErrNotExist)); err != nil {
		return nil, err
	}
	if err := create(ctx, s.path, s.keys.id); err != nil {
		return nil, err
	}
	if err := checkHeader(s.path); err != nil {
		return nil, err
	}
	if s.db, err = connect(s.path); err != nil {
		return nil, err
	}
	if err := s.check(ctx); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// Close releases the database.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", s.path, err)
	}
	return nil
}

// connect prepares one connection to the database at path, without opening it. One per
// process is enough for transactions of milliseconds, and calls of one process queue for
// it in order instead of competing for SQLite's lock.
func connect(path string) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"mode":          {"rw"},
		"_defensive":    {"1"},
		"_dqs":          {"0"},
		"_error_rc":     {"1"},
		"_txlock":       {"immediate"}, // takes the write lock at the start, so that no first write fails
		"_busy_timeout": {fmt.Sprint(patience.Milliseconds())},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"}, // in WAL mode, a lower setting may lose commits in a power failure
		"_foreign_keys": {"1"},
		"_pragma":       {"secure_delete(1)"}, // overwrites deleted data
	}.Encode()}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", path, err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

// create makes the database unless it exists. It is made under another name and then
// linked into place, so that no process finds it incomplete, and of several creators
// one wins.
func create(ctx context.Context, path, keyID string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return place(path, func(draft string) error {
		f, err := os.OpenFile(draft, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // the log files get this mode too
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		db, err := connect(draft)
		if err != nil {
			return err
		}
		_, err = db.ExecContext(ctx, schema)
		if err == nil {
			_, err = db.ExecContext(ctx, `INSERT INTO installation (key_id) VALUES (?)`, keyID)
		}
		if err == nil {
			err = emptyLog(ctx, db)
		}
		return errors.Join(err, db.Close())
	})
}

// emptyLog moves everything from the log into the database's file. The last Close does
// that too, but does not report a failure.
func emptyLog(ctx context.Context, db *sql.DB) error {
	var busy bool
	var left, moved int
	if err := db.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &left, &moved); err != nil {
		return err
	}
	if busy || left != 0 {
		return errors.New("the log could not be moved into the database file completely")
	}
	return nil
}

// place lets write make a file and links it to path. An existing file at path stays
// unchanged. The file is synced, and so is the directory.
func place(path string, write func(draft string) error) (err error) {
	dir := filepath.Dir(path)
	scratch, err := os.MkdirTemp(dir, "new-*")
	if err != nil {
		return fmt.Errorf("making %s: %w; choose a directory that you may write to", path, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	draft := filepath.Join(scratch, filepath.Base(path))
	if err := write(draft); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	if err := flush(draft); err != nil {
		return err
	}
	if err := os.Link(draft, path); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making %s: %w; the directory must be on a local disk that supports hard links", path, err)
	}
	return flush(dir)
}

// flush writes a file, or a directory's entries, to the disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// checkHeader reads the file before SQLite does, because SQLite may change a file when it
// opens it.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	header := make([]byte, 100)
	if _, err := io.ReadFull(f, header); err != nil || string(header[:16]) != "SQLite format 3\x00" ||
		binary.BigEndian.Uint32(header[68:]) != applicationID {
		return fmt.Errorf("%s is not a database of tokenturn, or is damaged; "+
			"restore a backup of it together with %s, or choose another directory", path, KeyName)
	}
	return nil
}

// check verifies that the database fits this program and this key file and can be
// written, before anything depends on it. It upgrades an earlier schema, deletes secrets
// at the end of their recovery time, and tidies the reserve.
func (s *Store) check(ctx context.Context) error {
	return s.write(ctx, "checking the database", func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
			return err
		}
		if version < 1 || version > schemaVersion {
			return fmt.Errorf("%s has schema %d, but this program knows schemas up to %d; use the newest tokenturn",
				s.path, version, schemaVersion)
		}
		var keyID string
		if err := tx.QueryRowContext(ctx, `SELECT key_id FROM installation`).Scan(&keyID); err != nil {
			return err
		}
		if keyID != s.keys.id {
			return fmt.Errorf("%s is not the key file that %s was made with; restore the right one",
				filepath.Join(filepath.Dir(s.path), KeyName), s.path)
		}
		for ; version < schemaVersion; version++ {
			if _, err := tx.ExecContext(ctx, upgrades[version]); err != nil {
				return fmt.Errorf("upgrading the database to schema %d: %w", version+1, err)
			}
		}
		if err := purge(ctx, tx, time.Now()); err != nil {
			return err
		}
		return s.reserve.tidy(ctx, tx)
	})
}

// tidy overwrites answers in the reserve that the database has.
func (s *Store) tidy(ctx context.Context) error {
	return s.write(ctx, "tidying the reserve", func(tx *sql.Tx) error { return s.reserve.tidy(ctx, tx) })
}

// write runs do in one transaction that holds the write lock from the start.
// A nil return means that it is durable. what names the operation for errors.
func (s *Store) write(ctx context.Context, what string, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return s.fault(what, err)
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := do(tx); err != nil {
		return s.fault(what, err)
	}
	return s.fault(what, tx.Commit())
}

// read runs do on one consistent state of the database.
func (s *Store) read(ctx context.Context, what string, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s.fault(what, err)
	}
	defer tx.Rollback()
	return s.fault(what, do(tx))
}

// fault adds to err the operation, the file, and what to do.
func (s *Store) fault(what string, err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s in %s: %w%s", what, s.path, err, advice(e.Code()))
}

// advice says what an operator can do about an SQLite result code
// (https://www.sqlite.org/rescode.html).
func advice(code int) string {
	switch code & 0xff {
	case sqlite3.SQLITE_BUSY:
		return fmt.Sprintf("; another process has kept the database locked for %v: find out which process has it open",
			patience)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return "; make the file and its directory writable for this user"
	case sqlite3.SQLITE_FULL:
		return "; free space on the disk"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return "; the file is damaged: stop every tokenturn process and restore a backup of it together with " + KeyName
	case sqlite3.SQLITE_IOERR:
		return "; check the disk and the system's log"
	}
	return ""
}
