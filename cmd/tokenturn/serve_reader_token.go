package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// readerTokenName is the name of the file in the data directory with the token of readers,
// unless --token-file names another one.
const readerTokenName = "reader-token"

// readerToken returns the token of the file, which it makes first if it is missing: readers
// keep the token in their environment, so it stays the same. Only the owner can read a new
// file and, if group is set, that group.
func readerToken(file, group string) (token.Secret, error) {
	secret, err := readReaderToken(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createReaderToken(file, group); err != nil {
			return token.Secret{}, fmt.Errorf("making the file with the token of readers: %w; choose another file with "+
				"--token-file", err)
		}
		secret, err = readReaderToken(file)
	} else if err == nil && group != "" {
		err = giveToGroup(file, group)
	}
	return secret, err
}

func readReaderToken(file string) (token.Secret, error) {
	f, err := os.Open(file)
	if err != nil {
		return token.Secret{}, fmt.Errorf("reading the token of readers: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return token.Secret{}, fmt.Errorf("reading the token of readers: %w", err)
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o037 != 0 {
		return token.Secret{}, fmt.Errorf("other users can read %s, or its group can change it (mode %04o); delete it, and "+
			"tokenturn makes a new one", file, mode.Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return token.Secret{}, fmt.Errorf("reading the token of readers: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if len(secret) < len(rand.Text()) || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return token.Secret{}, fmt.Errorf("%s is not a token of readers; delete it, and tokenturn makes a new one", file)
	}
	return token.NewSecret(secret), nil
}

// createReaderToken makes the file complete or not at all. If several processes try, one wins.
func createReaderToken(file, group string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // only its owner can read it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(rand.Text() + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if group != "" {
		if err := giveToGroup(f.Name(), group); err != nil {
			return err
		}
	}
	if err := os.Link(f.Name(), file); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// giveToGroup lets a group read the file.
func giveToGroup(file, group string) error {
	found, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("--token-group: %w", err)
	}
	id, err := strconv.Atoi(found.Gid)
	if err != nil {
		return fmt.Errorf("--token-group: this system has no group ids; set the permissions of %s yourself", file)
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if groupOf(info) != id { // a service may not be allowed to make the call
		if err := os.Chown(file, -1, id); err != nil { // without privileges: only a group that this user is in
			return fmt.Errorf("--token-group: %w", err)
		}
	}
	return os.Chmod(file, 0o640)
}
