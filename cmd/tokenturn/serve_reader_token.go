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
	secret, err := readReaderToken(file, group)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createReaderToken(file); err != nil {
			return token.Secret{}, fmt.Errorf("making the file with the token of readers: %w; choose another file with "+
				"--token-file", err)
		}
		secret, err = readReaderToken(file, group)
	}
	return secret, err
}

// readReaderToken returns the token of the file, and lets group read it. All is done to one open
// file: another user who can change the directory could replace it meanwhile.
func readReaderToken(file, group string) (token.Secret, error) {
	f, err := openItself(file)
	if err != nil {
		return token.Secret{}, fmt.Errorf("reading the token of readers: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return token.Secret{}, fmt.Errorf("reading the token of readers: %w", err)
	}
	if !info.Mode().IsRegular() {
		return token.Secret{}, fmt.Errorf("%s is not a file; choose another file with --token-file", file)
	}
	if owner, foreign := foreignOwner(info); foreign {
		return token.Secret{}, fmt.Errorf("%s belongs to another user (uid %d), who can read and change the token; let that "+
			"user or root delete it, and tokenturn makes a new one, or choose another file with --token-file", file, owner)
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o037 != 0 {
		return token.Secret{}, fmt.Errorf("other users can read %s, or its group can change it (mode %04o); %s", file,
			mode.Perm(), another(file))
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return token.Secret{}, fmt.Errorf("reading the token of readers: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if len(secret) < len(rand.Text()) || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return token.Secret{}, fmt.Errorf("%s is not a token of readers; %s", file, another(file))
	}
	if group != "" {
		if err := giveToGroup(f, info, group); err != nil {
			return token.Secret{}, err
		}
	}
	return token.NewSecret(secret), nil
}

// another says how to get a file that can be used. Nobody should delete a file that may be
// something else, such as a key.
func another(file string) string {
	if filepath.Base(file) == readerTokenName {
		return "delete it, and tokenturn makes a new one"
	}
	return "choose another file with --token-file"
}

// createReaderToken makes the file complete or not at all. If several processes try, one wins.
func createReaderToken(file string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // only its owner can read it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(rand.Text() + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), file); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// readableByGroup is the mode of a file that a group can read.
const readableByGroup = 0o640

// giveToGroup lets a group read the file. It makes no call without need: a service may not be
// allowed to make it.
func giveToGroup(f *os.File, info fs.FileInfo, group string) error {
	found, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("--token-group: %w", err)
	}
	id, err := strconv.Atoi(found.Gid)
	if err != nil {
		return fmt.Errorf("--token-group: this system has no group ids; set the permissions of %s yourself", f.Name())
	}
	if groupOf(info) != id {
		if err := f.Chown(-1, id); err != nil { // without privileges: only a group that this user is in
			return fmt.Errorf("--token-group: %w", err)
		}
	}
	if info.Mode().Perm() != readableByGroup {
		if err := f.Chmod(readableByGroup); err != nil {
			return fmt.Errorf("--token-group: %w", err)
		}
	}
	return nil
}
