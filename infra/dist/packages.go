package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// packages makes .deb and .rpm with nfpm, which is a tool of its own module: its dependencies are not those of the
// programs.
func (r *release) packages(ctx context.Context, pages []file) error {
	for _, p := range r.platforms {
		if p.system != "linux" {
			continue
		}
		for _, kind := range []string{"deb", "rpm"} {
			config, err := r.nfpmConfig(p, kind, pages)
			if err != nil {
				return err
			}
			nfpm := exec.CommandContext(ctx, "go", "tool", "nfpm", "package", "--config", config, "--packager", kind, "--target",
				filepath.Join(r.out, r.name(p.system+"_"+p.arch+"."+kind)))
			nfpm.Dir = filepath.Join(r.root, tools)
			nfpm.Env = append(os.Environ(), fmt.Sprint("SOURCE_DATE_EPOCH=", r.time.Unix()), "GOFLAGS=")
			if _, err := output(nfpm); err != nil {
				return err
			}
		}
	}
	return nil
}

// content is an entry of a package, in nfpm's words.
type content struct {
	Source   string   `json:"src"`
	Path     string   `json:"dst"`
	Type     string   `json:"type,omitempty"`
	FileInfo fileInfo `json:"file_info"`
}

type fileInfo struct {
	Mode  fs.FileMode `json:"mode"`
	MTime time.Time   `json:"mtime"`
}

// nfpmConfig writes the files of one package and nfpm's description of it, which is YAML and therefore may be JSON.
func (r *release) nfpmConfig(p platform, kind string, pages []file) (string, error) {
	dir := filepath.Join(r.work, kind+"-"+p.arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	sources := filepath.Join(r.root, "infra/dist/package")
	zsh, depends := "/usr/share/zsh/vendor-completions/", []string{"ca-certificates", "passwd"}
	if kind == "rpm" {
		zsh, depends = "/usr/share/zsh/site-functions/", []string{"ca-certificates", "shadow-utils"}
	}
	var contents []content
	add := func(source, path, kind string, mode fs.FileMode) {
		contents = append(contents, content{source, path, kind, fileInfo{mode, r.time}})
	}
	add(filepath.Join(r.work, p.system, p.arch, filepath.Base(command)), "/usr/bin/tokenturn", "", 0o755)
	add(filepath.Join(sources, "tokenturn.service"), "/usr/lib/systemd/system/tokenturn.service", "", 0o644)
	// after-install gives it to the group, which does not exist before.
	add(filepath.Join(sources, "tokenturn.default"), "/etc/default/tokenturn", "config|noreplace", 0o640)
	for _, name := range []string{"README.md", "CHANGELOG.md"} {
		add(filepath.Join(r.root, name), "/usr/share/doc/tokenturn/"+name, "", 0o644)
	}
	add(filepath.Join(r.root, "LICENSE"), "/usr/share/doc/tokenturn/copyright", "", 0o644) // where Debian looks for it
	for i, page := range pages {
		target, text := "", page.content
		switch base := path.Base(page.path); {
		case strings.HasPrefix(page.path, "man/"):
			var err error
			if text, err = gzipped(text); err != nil {
				return "", err
			}
			target = "/usr/share/man/man1/" + base + ".gz"
		case base == "tokenturn.bash":
			target = "/usr/share/bash-completion/completions/tokenturn"
		case base == "_tokenturn":
			target = zsh + base
		case base == "tokenturn.fish":
			target = "/usr/share/fish/vendor_completions.d/" + base
		default: // PowerShell has no such directory
			continue
		}
		source := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(source, text, 0o644); err != nil {
			return "", err
		}
		add(source, target, "", 0o644)
	}
	scripts := map[string]string{}
	for hook, name := range map[string]string{"postinstall": "after-install", "preremove": "before-remove",
		"postremove": "after-remove"} {
		scripts[hook] = filepath.Join(sources, name)
	}
	described, err := json.Marshal(map[string]any{
		"name": "tokenturn", "arch": p.arch, "platform": p.system, "version": r.version, "version_schema": "semver",
		"release": "1", "section": "net", "priority": "optional", "maintainer": maintainer, "homepage": home,
		"license": "Apache-2.0", "description": description + "\n" + longDescription, "mtime": r.time,
		"depends": depends, "contents": contents, "scripts": scripts, "disable_globbing": true,
		"rpm": map[string]any{"buildhost": "localhost", "summary": description, "packager": maintainer},
	})
	if err != nil {
		return "", err
	}
	config := filepath.Join(dir, "nfpm.json")
	return config, os.WriteFile(config, described, 0o644)
}

const (
	home            = "https://github.com/tokenturn/tokenturn"
	maintainer      = "tokenturn contributors <tokenturn@users.noreply.github.com>"
	description     = "Keeps Procore OAuth tokens fresh"
	longDescription = `tokenturn uses each single-use refresh token exactly once, saves every new
token pair before anything else happens to it, and gives other programs an
access token that works. The service runs it on this machine.`
)
