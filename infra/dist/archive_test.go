//go:build conformance

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"debug/elf"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An archive for Linux has the command, which needs no library, and what belongs to it, in one directory.
func TestArchives(t *testing.T) {
	for arch, machine := range machines {
		dir := "tokenturn_" + testNumber + "_linux_" + arch
		z, err := gzip.NewReader(strings.NewReader(readFile(t, firstBuild(t), dir+".tar.gz")))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for archive := tar.NewReader(z); ; {
			h, err := archive.Next()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			name, in := strings.CutPrefix(h.Name, dir+"/")
			if !in {
				t.Errorf("%s is not in the directory", h.Name)
			}
			names = append(names, name)
			if name != "tokenturn" {
				continue
			}
			content, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			checkStatic(t, content, machine)
		}
		for _, want := range []string{"tokenturn", "LICENSE", "README.md", "man/man1/tokenturn.1",
			"man/man1/tokenturn-token-print.1", "completions/tokenturn.bash", "completions/_tokenturn",
			"completions/tokenturn.fish", "completions/tokenturn.ps1"} {
			if !slices.Contains(names, want) {
				t.Errorf("%s has no %s", dir, want)
			}
		}
	}
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

func TestFunctions(t *testing.T) {
	for _, name := range []string{"rotate", "callback"} {
		for architecture, machine := range map[string]elf.Machine{"arm64": elf.EM_AARCH64, "x86_64": elf.EM_X86_64} {
			file := "tokenturn_" + testNumber + "_lambda_" + name + "_" + architecture + ".zip"
			z, err := zip.OpenReader(filepath.Join(firstBuild(t), file))
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			content, err := fs.ReadFile(z, "bootstrap")
			if err != nil || len(z.File) != 1 || z.File[0].Mode() != 0o755 {
				t.Errorf("%s: %v, %+v", file, err, z.File)
			}
			checkStatic(t, content, machine)
			info, err := buildinfo.Read(bytes.NewReader(content))
			if err != nil || info.Path != "github.com/tokenturn/tokenturn/functions/"+name {
				t.Errorf("%s: %v, %v", file, err, info)
			}
		}
	}
}

// checkStatic reports a program for another processor, or one that needs a dynamic linker.
func checkStatic(t *testing.T, program []byte, machine elf.Machine) {
	t.Helper()
	e, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	interpreted := slices.ContainsFunc(e.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if e.Machine != machine || interpreted {
		t.Errorf("a program is for %v, not %v, or is dynamic: %v", e.Machine, machine, interpreted)
	}
}
