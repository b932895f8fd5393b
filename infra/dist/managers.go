package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"text/template"
)

// managers writes the manifests of Homebrew and Scoop, for the archives that were made. Their addresses are those that
// the archives will have once a release of this version is published.
func (r *release) managers() error {
	if archives := r.archivesFor("darwin", "linux"); len(archives) > 0 {
		formula, err := r.formula(archives)
		if err != nil {
			return err
		}
		if err := r.write("tokenturn.rb", formula); err != nil {
			return err
		}
	}
	if archives := r.archivesFor("windows"); len(archives) > 0 {
		manifest, err := r.scoop(archives)
		if err != nil {
			return err
		}
		if err := r.write("tokenturn.json", manifest); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) archivesFor(systems ...string) (found []archive) {
	for _, system := range systems {
		for _, a := range r.archives {
			if a.system == system {
				found = append(found, a)
			}
		}
	}
	return found
}

func (r *release) address(a archive) string {
	return home + "/releases/download/" + r.version + "/" + a.name
}

var formula = template.Must(template.New("formula").Parse(`class Tokenturn < Formula
  desc "{{.Description}}"
  homepage "{{.Home}}"
  version "{{.Version}}"
  license "Apache-2.0"
{{range .Systems}}
  on_{{.Name}} do
{{- range .Archives}}
    on_{{.Processor}} do
      url "{{.Address}}"
      sha256 "{{.Sum}}"
    end
{{- end}}
  end
{{end}}
  def install
    bin.install "tokenturn"
    man1.install Dir["man/man1/*"]
    bash_completion.install "completions/tokenturn.bash" => "tokenturn"
    zsh_completion.install "completions/_tokenturn"
    fish_completion.install "completions/tokenturn.fish"
  end

  service do
    run [opt_bin/"tokenturn", "serve"]
    keep_alive successful_exit: false
    log_path var/"log/tokenturn.log"
    error_log_path var/"log/tokenturn.log"
  end

  test do
    assert_match "v#{version}", shell_output("#{bin}/tokenturn --version")
  end
end
`))

func (r *release) formula(archives []archive) ([]byte, error) {
	type packed struct{ Processor, Address, Sum string }
	type system struct {
		Name     string
		Archives []packed
	}
	var systems []system
	for _, a := range archives {
		name := map[string]string{"darwin": "macos", "linux": "linux"}[a.system]
		if len(systems) == 0 || systems[len(systems)-1].Name != name {
			systems = append(systems, system{Name: name})
		}
		last := &systems[len(systems)-1]
		processor := map[string]string{"amd64": "intel", "arm64": "arm"}[a.arch]
		last.Archives = append(last.Archives, packed{processor, r.address(a), a.sha256})
	}
	var out bytes.Buffer
	err := formula.Execute(&out, map[string]any{"Description": description, "Home": home, "Version": r.number(),
		"Systems": systems})
	return out.Bytes(), err
}

func (r *release) scoop(archives []archive) ([]byte, error) {
	architectures, update := map[string]any{}, map[string]any{}
	for _, a := range archives {
		name := map[string]string{"amd64": "64bit", "arm64": "arm64"}[a.arch]
		address, dir := r.address(a), strings.TrimSuffix(a.name, ".zip")
		later := func(text string) string { return strings.ReplaceAll(text, r.number(), "$version") }
		architectures[name] = map[string]any{"url": address, "hash": a.sha256, "extract_dir": dir}
		update[name] = map[string]any{"url": later(address), "extract_dir": later(dir)}
	}
	content, err := json.MarshalIndent(map[string]any{
		"version": r.number(), "description": description, "homepage": home, "license": "Apache-2.0",
		"architecture": architectures, "bin": "tokenturn.exe",
		"checkver":   map[string]any{"github": home},
		"autoupdate": map[string]any{"architecture": update, "hash": map[string]any{"url": "$baseurl/" + sums}},
	}, "", "    ")
	return append(content, '\n'), err
}
