package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The bill of materials is a CycloneDX 1.6 document: https://cyclonedx.org/docs/1.6/json/
type (
	document struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		SerialNumber string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		URL        string     `json:"purl"`
		Licenses   []license  `json:"licenses,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	license struct {
		License struct {
			ID string `json:"id"`
		} `json:"license"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// bill writes what the programs contain, as the Go toolchain recorded it in them, and what the image adds.
func (r *release) bill(ctx context.Context) error {
	found := map[string]component{}
	for _, program := range r.programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return err
		}
		std := module("std", strings.TrimPrefix(info.GoVersion, "go"), "")
		found[std.Ref] = std
		for _, dep := range info.Deps {
			if dep.Replace != nil {
				dep = dep.Replace
			}
			c := module(dep.Path, dep.Version, dep.Sum)
			found[c.Ref] = c
		}
	}
	roots := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", rootsModule)
	roots.Dir = filepath.Join(r.root, tools)
	version, err := output(roots)
	if err != nil {
		return err
	}
	c := module(rootsModule, string(bytes.TrimSpace(version)), "")
	found[c.Ref] = c

	content, err := bom(r.version, r.time, found)
	if err != nil {
		return err
	}
	return r.write(r.name("sbom.cdx.json"), content)
}

const (
	tools       = "infra/dist/tools"
	rootsModule = "golang.org/x/crypto/x509roots/fallback"
)

func module(path, version, sum string) component {
	purl := "pkg:golang/" + path + "@" + version
	c := component{Type: "library", Ref: purl, Name: path, Version: version, URL: purl}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}

func bom(version string, at time.Time, found map[string]component) ([]byte, error) {
	product := module("github.com/tokenturn/tokenturn", version, "")
	product.Type, product.Name = "application", "tokenturn"
	product.Licenses = make([]license, 1)
	product.Licenses[0].License.ID = "Apache-2.0"
	d := document{Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6",
		Version: 1, Metadata: metadata{at.Format(time.RFC3339), product}}
	all := dependency{Ref: product.Ref}
	for _, c := range found {
		d.Components = append(d.Components, c)
		all.DependsOn = append(all.DependsOn, c.Ref)
	}
	slices.SortFunc(d.Components, func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	slices.Sort(all.DependsOn)
	d.Dependencies = []dependency{all}
	unnumbered, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	// The specification wants a UUID. This one follows from the content, as in version 8 of RFC 9562.
	id := sha256.Sum256(unnumbered)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	d.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
	content, err := json.MarshalIndent(d, "", "  ")
	return append(content, '\n'), err
}
