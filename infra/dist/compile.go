package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// platform is what a program runs on, in Go's words.
type platform struct{ system, arch string }

func (p platform) String() string { return p.system + "/" + p.arch }

// program is the name of the command's file.
func (p platform) program() string {
	if p.system == "windows" {
		return "tokenturn.exe"
	}
	return "tokenturn"
}

// platformsOf are the platforms of a list of operating systems.
func platformsOf(systems string) (found []platform, err error) {
	for system := range strings.SplitSeq(systems, ",") {
		switch system {
		case "linux", "darwin", "windows":
			found = append(found, platform{system, "amd64"}, platform{system, "arm64"})
		default:
			return nil, fmt.Errorf("-os %q: there is linux, darwin and windows", system)
		}
	}
	return found, nil
}

// compile builds a program and returns its path. The bytes depend on the source, the version and the Go toolchain
// only: variables that change the compiler's output are set or cleared.
func (r *release) compile(ctx context.Context, program string, p platform, tags ...string) (string, error) {
	path := filepath.Join(r.work, p.system, p.arch, filepath.Base(program))
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-tags", strings.Join(tags, ","),
		"-ldflags", "-s -w -buildid= -X github.com/tokenturn/tokenturn/pkg/release.version="+r.version,
		"-o", path, "./"+program)
	build.Dir = r.root
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.system, "GOARCH="+p.arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s for %s: %w\n%s", program, p, err, out)
	}
	if !slices.Contains(r.programs, path) {
		r.programs = append(r.programs, path)
	}
	return path, nil
}

const command = "cmd/tokenturn"

// host is the platform of this machine.
var host = platform{runtime.GOOS, runtime.GOARCH}

// output runs a program and returns its standard output.
func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, failed.Stderr)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return out, nil
}
