package embedded_test

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/embedded"
)

func TestOpenMakesPrivateFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // making and reopening
		s, err := embedded.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got, want := names(t, dir), []string{embedded.DatabaseName, embedded.KeyName}; !slices.Equal(got, want) {
			t.Fatalf("the directory holds %q, want %q", got, want)
		}
	}
	for path, want := range map[string]os.FileMode{
		dir: 0o700,
		filepath.Join(dir, embedded.DatabaseName): 0o600,
		filepath.Join(dir, embedded.KeyName):      0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode().Perm(), err, want)
		}
	}
}

func TestLogFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	for _, name := range names(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode().Perm(), err)
		}
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"with space", "50%20off", "what?mode=ro", "a#b", "Żółw 🐢", "file:x"} {
		dir := filepath.Join(t.TempDir(), name)
		s := openStore(t, dir)
		set(t, s)
		if !slices.Contains(names(t, dir), embedded.DatabaseName) {
			t.Errorf("%q: the database is elsewhere", name)
		}
	}
}

func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	s := openStore(t, "data")
	t.Chdir(t.TempDir()) // must not matter any more
	set(t, s)
}

func TestOpenRefuses(t *testing.T) {
	write := func(name string, content []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	damage := func(offset int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, embedded.DatabaseName), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 4096*8), offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	query := func(queries string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { execute(t, filepath.Join(dir, embedded.DatabaseName), queries) }
	}
	tests := map[string]struct {
		spoil func(t *testing.T, dir string)
		says  []string
	}{
		"key file open to others": {func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, embedded.KeyName), 0o640); err != nil {
				t.Fatal(err)
			}
		}, []string{embedded.KeyName, "0640", "chmod 600"}},
		"key file missing": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, embedded.KeyName)); err != nil {
				t.Fatal(err)
			}
		}, []string{embedded.KeyName, "missing", "backup"}},
		"key file of another store": {func(t *testing.T, dir string) {
			other := t.TempDir()
			openStore(t, other)
			key, err := os.ReadFile(filepath.Join(other, embedded.KeyName))
			if err != nil {
				t.Fatal(err)
			}
			write(embedded.KeyName, key)(t, dir)
		}, []string{embedded.KeyName, "not the key file", "restore the right one"}},
		"key file of another kind": {write(embedded.KeyName, []byte("ssh-ed25519 CANARY")),
			[]string{"not a key file of tokenturn"}},
		"key file cut off": {write(embedded.KeyName, []byte("tokenturn-key-1 CANARY")),
			[]string{"not a key file of tokenturn"}},
		"key file empty": {write(embedded.KeyName, nil), []string{"not a key file of tokenturn"}},
		"database of another kind": {write(embedded.DatabaseName, bytes.Repeat([]byte("CANARY "), 1000)),
			[]string{embedded.DatabaseName, "not a database of tokenturn"}},
		"database empty": {write(embedded.DatabaseName, nil), []string{"damaged", "backup"}},
		"database of another program": {func(t *testing.T, dir string) {
			write(embedded.DatabaseName, nil)(t, dir)
			query(`CREATE TABLE t (x); INSERT INTO t VALUES ('CANARY')`)(t, dir)
		}, []string{"not a database of tokenturn", "another directory"}},
		"database of a newer schema": {query(`PRAGMA user_version = 4`), []string{"schema 4", "newest tokenturn"}},
		"database damaged":           {damage(100), []string{embedded.DatabaseName, "damaged", "backup"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := openAndClose(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			test.spoil(t, dir)
			before := contents(t, dir)
			s, err := embedded.Open(t.Context(), dir)
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			for _, want := range append(test.says, dir) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the error shows the file's content: %v", err)
			}
			for name, content := range contents(t, dir) {
				if was, found := before[name]; !found || was != content {
					t.Errorf("%s was changed or left behind", name)
				}
			}
		})
	}
}

func TestOpenBelowAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Open(t.Context(), filepath.Join(file, "data")); err == nil || !strings.Contains(err.Error(),
		"choose one that you may write to") {
		t.Errorf("error %v", err)
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	for name, fill := range map[string]bool{"empty": false, "with a store": true} {
		t.Run(name, func(t *testing.T) {
			top, err := os.MkdirTemp("", "read only ") // t.TempDir is below a directory that nobody else may enter
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(top) })
			dir := filepath.Join(top, "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if fill {
				if err := openAndClose(t.Context(), dir); err != nil {
					t.Fatal(err)
				}
			}
			owned(t, top)
			if err := os.Chmod(dir, 0o500); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(dir, 0o700) })
			if said := failure(t, child(t, "open", dir, true)); !strings.Contains(said, dir) || !strings.Contains(said, "writ") {
				t.Errorf("it said: %s", said)
			}
		})
	}
}

// owned gives everything below top to nobody if this is root.
func owned(t *testing.T, top string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	paths, err := filepath.Glob(filepath.Join(top, "data", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, top, filepath.Join(top, "data")) {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
}

// execute runs queries on the database without the store.
func execute(t *testing.T, path, queries string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), queries); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, path, table string) (rows int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM `+table).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range names(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(content)
	}
	return all
}
