package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

var sample = []file{
	{path: "d/", mode: 0o700, owner: 7},
	{path: "d/program", mode: 0o755, content: []byte("#!/bin/sh\n")},
	{path: "d/tmp/", mode: 0o777 | fs.ModeSticky},
	{path: "d/text", mode: 0o644, content: []byte("text\n")},
}

func TestTarHasWhatWasGiven(t *testing.T) {
	packed, err := tarGz(sample, at)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := tarGz(sample, at); err != nil || !bytes.Equal(packed, again) {
		t.Errorf("the second archive differs, or %v", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if z.Name != "" || !z.ModTime.IsZero() {
		t.Errorf("gzip has name %q and time %v", z.Name, z.ModTime)
	}
	entries := tar.NewReader(z)
	for _, want := range sample {
		h, err := entries.Next()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(entries)
		if err != nil || !bytes.Equal(content, want.content) {
			t.Errorf("%s: %q, %v", want.path, content, err)
		}
		mode := h.FileInfo().Mode()
		if h.Name != want.path || mode.Perm() != want.mode.Perm() || mode&fs.ModeSticky != want.mode&fs.ModeSticky ||
			mode.IsDir() != strings.HasSuffix(want.path, "/") || h.Uid != want.owner || h.Gid != want.owner ||
			!h.ModTime.Equal(at) || h.Uname != "" {
			t.Errorf("%s: %+v", want.path, h)
		}
	}
}

// Lambda starts /bootstrap, which must be executable.
func TestZipHasWhatWasGiven(t *testing.T) {
	files := []file{{path: "bootstrap", mode: 0o755, content: []byte("program")}}
	packed, err := zipped(files, at)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := zipped(files, at); err != nil || !bytes.Equal(packed, again) {
		t.Errorf("the second archive differs, or %v", err)
	}
	z, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	content, err := fs.ReadFile(z, "bootstrap")
	if err != nil || string(content) != "program" {
		t.Errorf("%q, %v", content, err)
	}
	if f := z.File[0]; len(z.File) != 1 || f.Mode() != 0o755 || !f.Modified.Equal(at) {
		t.Errorf("%+v", f.FileHeader)
	}
}

// Every digest and size in the image is that of a blob, and the container runs without root.
func TestImageIsComplete(t *testing.T) {
	var l layout
	added, err := l.addImage(sample, platform{"linux", "arm64"}, "v1.2.3", at)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := (&layout{}).addImage(sample, platform{"linux", "arm64"}, "v1.2.3", at); err != nil ||
		again.Digest != added.Digest {
		t.Errorf("the second image differs, or %v", err)
	}
	var m manifest
	unmarshal(t, blob(t, l.files, added), &m)
	var config imageConfig
	unmarshal(t, blob(t, l.files, m.Config), &config)
	z, err := gzip.NewReader(bytes.NewReader(blob(t, l.files, m.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if id := fmt.Sprintf("sha256:%x", sha256.Sum256(plain)); !slices.Equal(config.RootFS.DiffIDs, []string{id}) {
		t.Errorf("the layer is %s, the configuration says %v", id, config.RootFS.DiffIDs)
	}
	c := config.Config
	if added.Platform.Architecture != "arm64" || config.Architecture != "arm64" || config.OS != "linux" ||
		c.User != "65532:65532" || len(c.Volumes) != 1 || c.Healthcheck.Test[1] != "/"+healthcheck {
		t.Errorf("%+v\n%+v", added, config)
	}
}

func blob(t *testing.T, files []file, d descriptor) []byte {
	t.Helper()
	i := slices.IndexFunc(files, func(f file) bool {
		return f.path == "blobs/"+strings.Replace(d.Digest, ":", "/", 1)
	})
	if i < 0 {
		t.Fatalf("there is no blob %s", d.Digest)
	}
	content := files[i].content
	if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); sum != d.Digest || len(content) != d.Size {
		t.Errorf("%+v has %s and %d bytes", d, sum, len(content))
	}
	return content
}

func unmarshal(t *testing.T, content []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(content, to); err != nil {
		t.Fatalf("%v\n%s", err, content)
	}
}

func TestBillNamesEveryModule(t *testing.T) {
	found := map[string]component{}
	for _, c := range []component{module("std", "1.26.0", ""), module("example.com/b", "v1.0.0", "h1:x"),
		module("example.com/a", "v2.0.0", "h1:y")} {
		found[c.Ref] = c
	}
	content, err := bom("v1.2.3", at, found)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := bom("v1.2.3", at, found); err != nil || !bytes.Equal(content, again) {
		t.Errorf("the second bill differs, or %v", err)
	}
	var d document
	unmarshal(t, content, &d)
	if len(d.Components) != 3 || d.Components[0].URL != "pkg:golang/example.com/a@v2.0.0" ||
		d.Dependencies[0].Ref != d.Metadata.Component.Ref || len(d.Dependencies[0].DependsOn) != 3 ||
		len(d.SerialNumber) != len("urn:uuid:00000000-0000-8000-8000-000000000000") || d.SerialNumber[23] != '8' {
		t.Errorf("%s", content)
	}
}

func TestManifestsOfPackageManagers(t *testing.T) {
	r := release{out: t.TempDir(), version: "v1.2.3"}
	for _, p := range []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"},
		{"windows", "amd64"}, {"windows", "arm64"}} {
		kind := "tar.gz"
		if p.system == "windows" {
			kind = "zip"
		}
		r.archives = append(r.archives, archive{p, "tokenturn_1.2.3_" + p.system + "_" + p.arch + "." + kind, "sum of " +
			p.String()})
	}
	if err := r.managers(); err != nil {
		t.Fatal(err)
	}
	formula := readFile(t, r.out, "tokenturn.rb")
	for _, want := range []string{"  on_macos do\n    on_intel do\n      url \"" + home +
		"/releases/download/v1.2.3/tokenturn_1.2.3_darwin_amd64.tar.gz\"\n      sha256 \"sum of darwin/amd64\"\n",
		"  on_linux do\n", "sum of linux/arm64", `version "1.2.3"`} {
		if !strings.Contains(formula, want) {
			t.Errorf("no %s in\n%s", want, formula)
		}
	}
	var scoop struct {
		Version      string
		Architecture map[string]struct {
			URL, Hash string
			Dir       string `json:"extract_dir"`
		}
		Autoupdate struct {
			Architecture map[string]struct{ URL string }
		}
	}
	unmarshal(t, []byte(readFile(t, r.out, "tokenturn.json")), &scoop)
	arm := scoop.Architecture["arm64"]
	if scoop.Version != "1.2.3" || scoop.Architecture["64bit"].Hash != "sum of windows/amd64" ||
		arm.URL != home+"/releases/download/v1.2.3/tokenturn_1.2.3_windows_arm64.zip" ||
		arm.Dir != "tokenturn_1.2.3_windows_arm64" || scoop.Autoupdate.Architecture["arm64"].URL !=
		home+"/releases/download/v$version/tokenturn_$version_windows_arm64.zip" {
		t.Errorf("%+v", scoop)
	}
}

// A mistyped -out deletes nothing.
func TestOnlyAReleaseIsReplaced(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"tokenturn_1.2.3_sbom.cdx.json", sums} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := emptied(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "diary.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := emptied(dir); err == nil || readFile(t, dir, "diary.txt") != "" {
		t.Errorf("%v", err)
	}
}

func TestPlatforms(t *testing.T) {
	if found, err := platformsOf("linux,windows"); err != nil || fmt.Sprint(found) !=
		"[linux/amd64 linux/arm64 windows/amd64 windows/arm64]" {
		t.Errorf("%v, %v", found, err)
	}
	if _, err := platformsOf("plan9"); err == nil {
		t.Error("plan9 is accepted")
	}
}

func readFile(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// The service's settings may contain the password of a proxy.
func TestSettingsAreNotForEveryone(t *testing.T) {
	r := &release{root: "../..", work: t.TempDir(), version: "v1.2.3", time: at}
	for _, kind := range []string{"deb", "rpm"} {
		config, err := r.nfpmConfig(platform{system: "linux", arch: "amd64"}, kind, nil)
		if err != nil {
			t.Fatal(err)
		}
		described, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		var packed struct {
			Contents []content `json:"contents"`
		}
		if err := json.Unmarshal(described, &packed); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(packed.Contents, func(c content) bool { return c.Path == "/etc/default/tokenturn" })
		if i < 0 || packed.Contents[i].FileInfo.Mode != 0o640 {
			t.Errorf("%s: %+v", kind, packed.Contents)
		}
	}
}

// The first page starts the demo from the files for Windows and containers, with the names that they have.
func TestDemoOnTheFirstPage(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	windows := platform{system: "windows", arch: "amd64"}
	dir := (&release{version: "v*"}).name(windows.system + "_" + windows.arch)
	for _, want := range []string{
		"`& (Resolve-Path " + dir + "/" + windows.program() + ") serve --demo`",
		// With published ports only, nobody reaches the console and the stand-in.
		"--network=host docker.io/tokenturn/tokenturn:VERSION serve --demo`",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("README.md does not contain %s", want)
		}
	}
}
