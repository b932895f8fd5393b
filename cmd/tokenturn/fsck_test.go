package main

import (
	"database/sql"
	"errors"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	_ "modernc.org/sqlite"

	"github.com/tokenturn/tokenturn/pkg/embedded"
)

// cmdSQL changes the database of the embedded store as none of our programs does.
func cmdSQL(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", filepath.Join(ts.Getenv("HOME"), ".local", "share", "tokenturn", embedded.DatabaseName))
	ts.Check(err)
	_, err = db.Exec(args[0])
	ts.Check(errors.Join(err, db.Close()))
}
