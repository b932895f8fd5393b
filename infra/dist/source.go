package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// source says which version the files have and what time their entries bear. What is given wins over git.
func source(ctx context.Context, root, version string, getenv func(string) string) (string, time.Time, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	epoch := getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		var err error
		if epoch, err = git("log", "-1", "--format=%ct"); err != nil {
			return "", time.Time{}, fmt.Errorf("git gives no commit's time: %w; set SOURCE_DATE_EPOCH", err)
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q; it takes seconds since 1970", epoch)
	}
	if version == "" {
		if version, err = described(git); err != nil {
			return "", time.Time{}, fmt.Errorf("git gives no version: %w; use -version", err)
		}
	}
	if !semantic.MatchString(version) {
		return "", time.Time{}, fmt.Errorf("%q is no version such as v1.2.3 or v1.2.3-rc.1", version)
	}
	return version, time.Unix(seconds, 0).UTC(), nil
}

var (
	semantic = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$`)
	// describe is what `git describe --tags --long` prints.
	describe = regexp.MustCompile(`^v(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.]+)?-(\d+)-(g[0-9a-f]+)$`)
)

// described is the tag of this commit, such as v1.2.3. Without one it is a version that sorts after the last tag and
// before the next, as Go's pseudo-versions do, such as v1.2.4-dev.5.g0123abc, or v0.0.0-dev.5.g0123abc without any
// tag. The files of a changed tree are of nobody's commit, so their version says dirty.
func described(git func(...string) (string, error)) (string, error) {
	changes, err := git("status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return "", err
	}
	dirty := ""
	if changes != "" {
		dirty = ".dirty"
	}
	if long, err := git("describe", "--tags", "--long", "--match", "v[0-9]*"); err == nil {
		return afterTag(long, dirty)
	}
	count, err := git("rev-list", "--count", "HEAD")
	if err != nil {
		return "", err
	}
	hash, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("v0.0.0-dev.%s.g%s%s", count, hash, dirty), nil
}

func afterTag(long, dirty string) (string, error) {
	parts := describe.FindStringSubmatch(long)
	if parts == nil {
		return "", fmt.Errorf("the tag in %q is no version such as v1.2.3", long)
	}
	major, minor, patch, pre, commits, hash := parts[1], parts[2], parts[3], parts[4], parts[5], parts[6]
	if commits == "0" && dirty == "" {
		return "v" + major + "." + minor + "." + patch + pre, nil
	}
	if pre == "" {
		n, err := strconv.Atoi(patch)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("v%s.%s.%d-dev.%s.%s%s", major, minor, n+1, commits, hash, dirty), nil
	}
	return fmt.Sprintf("v%s.%s.%s%s.dev.%s.%s%s", major, minor, patch, pre, commits, hash, dirty), nil
}
