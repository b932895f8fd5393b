// Command dist makes the files of a release in build/dist: archives of the tokenturn command for each platform,
// .deb and .rpm packages with a systemd unit, an OCI image, the functions for AWS Lambda, a Homebrew formula, a Scoop
// manifest, a bill of materials and checksums. README.md says what is in each.
//
// Two builds of one commit with one Go toolchain give the same bytes: nothing in a file depends on the time of the
// build, the machine or the directory. Every time stamp is the commit's time or SOURCE_DATE_EPOCH.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.root, "root", ".", "directory of this repository")
	flag.StringVar(&o.out, "out", "", "directory for the files, which is emptied first (default build/dist)")
	flag.StringVar(&o.version, "version", "", "version, such as v1.2.3 (default from git's tags)")
	flag.StringVar(&o.systems, "os", "linux,darwin,windows", "operating systems to build for")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct{ root, out, version, systems string }

// run makes everything. If it fails, the output directory has no SHA256SUMS.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	started := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(out, "%5.1f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	r := release{}
	if r.root, err = filepath.Abs(o.root); err != nil {
		return err
	}
	r.out = filepath.Join(r.root, "build", "dist")
	if o.out != "" {
		if r.out, err = filepath.Abs(o.out); err != nil {
			return err
		}
	}
	if r.version, r.time, err = source(ctx, r.root, o.version, os.Getenv); err != nil {
		return err
	}
	if r.platforms, err = platformsOf(o.systems); err != nil {
		return err
	}
	if err := emptied(r.out); err != nil {
		return err
	}
	if r.work, err = os.MkdirTemp("", "tokenturn-dist-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.work)) }()
	say("version %s of %s; the first time, compiling takes a few minutes", r.version, r.time.Format(time.RFC3339))
	if err := r.make(ctx, say); err != nil {
		return err
	}
	if err := checksums(r.out); err != nil {
		return err
	}
	say("done: %s", r.out)
	return nil
}

// release is one run of the program.
type release struct {
	root, out string
	work      string // temporary
	version   string // with its v, such as v1.2.3
	time      time.Time
	platforms []platform
	programs  []string  // paths of what is compiled
	archives  []archive // that are made
}

func (r *release) make(ctx context.Context, say func(string, ...any)) error {
	pages, err := r.pages(ctx)
	if err != nil {
		return err
	}
	say("wrote %d manual pages and completions", len(pages))
	for _, p := range r.platforms {
		say("building tokenturn for %s", p)
		if err := r.archive(ctx, p, pages); err != nil {
			return err
		}
	}
	say("building the functions")
	if err := r.functions(ctx); err != nil {
		return err
	}
	if err := r.bill(ctx); err != nil {
		return err
	}
	if slices.ContainsFunc(r.platforms, func(p platform) bool { return p.system == "linux" }) {
		say("making .deb, .rpm and the image")
		if err := r.packages(ctx, pages); err != nil {
			return err
		}
		if err := r.image(ctx); err != nil {
			return err
		}
	}
	return r.managers()
}

// name is the name of a file of the release.
func (r *release) name(rest string) string { return "tokenturn_" + r.number() + "_" + rest }

// number is the version without its v.
func (r *release) number() string { return strings.TrimPrefix(r.version, "v") }

func (r *release) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(r.out, name), content, 0o644)
}

// emptied makes dir, without the files of an earlier run. It refuses a directory with other files.
func emptied(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "tokenturn") && e.Name() != sums {
			return fmt.Errorf("%s contains %s, which no release does; choose another directory with -out", dir, e.Name())
		}
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o755)
}

const sums = "SHA256SUMS"

// checksums writes SHA256SUMS, for `sha256sum --check`.
func checksums(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "%x  %s\n", sha256.Sum256(content), e.Name())
	}
	return os.WriteFile(filepath.Join(dir, sums), []byte(list.String()), 0o644)
}
