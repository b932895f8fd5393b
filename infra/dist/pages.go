package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// shells are the completions: the file of each shell in an archive.
var shells = []struct{ shell, path string }{
	{"bash", "completions/tokenturn.bash"},
	{"zsh", "completions/_tokenturn"},
	{"fish", "completions/tokenturn.fish"},
	{"powershell", "completions/tokenturn.ps1"},
}

// pages are the manual pages and completions, which the command itself writes. It runs without the variables of this
// machine that change what it writes.
func (r *release) pages(ctx context.Context) (files []file, err error) {
	program, err := r.compile(ctx, command, host)
	if err != nil {
		return nil, err
	}
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = []string{"HOME=" + r.work, "PATH=" + os.Getenv("PATH"), "SystemRoot=" + os.Getenv("SystemRoot"),
			fmt.Sprint("SOURCE_DATE_EPOCH=", r.time.Unix()), "TZ=UTC"}
		return output(cmd)
	}
	dir := filepath.Join(r.work, "man")
	if _, err := run("man", dir); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: "man/man1/" + name.Name(), mode: 0o644, content: content})
	}
	for _, s := range shells {
		content, err := run("completion", s.shell)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: s.path, mode: 0o644, content: content})
	}
	return files, nil
}
