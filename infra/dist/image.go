package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The image is an OCI image layout in a tar archive, for linux/amd64 and linux/arm64:
// https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Platform    *ociPlatform      `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	ociPlatform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	manifest struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Config        descriptor        `json:"config"`
		Layers        []descriptor      `json:"layers"`
		Annotations   map[string]string `json:"annotations"`
	}
	index struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []descriptor      `json:"manifests"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}
	imageConfig struct {
		Created      time.Time       `json:"created"`
		Architecture string          `json:"architecture"`
		OS           string          `json:"os"`
		Config       containerConfig `json:"config"`
		RootFS       struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	containerConfig struct {
		User         string              `json:"User"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Env          []string            `json:"Env"`
		Entrypoint   []string            `json:"Entrypoint"`
		Cmd          []string            `json:"Cmd"`
		Volumes      map[string]struct{} `json:"Volumes"`
		WorkingDir   string              `json:"WorkingDir"`
		StopSignal   string              `json:"StopSignal"`
		Labels       map[string]string   `json:"Labels"`
		// Healthcheck is Docker's extension of the specification. Durations are nanoseconds.
		Healthcheck struct {
			Test        []string
			Interval    time.Duration
			Timeout     time.Duration
			StartPeriod time.Duration
			Retries     int
		} `json:"Healthcheck"`
	}
)

const (
	imageIndex    = "application/vnd.oci.image.index.v1+json"
	imageManifest = "application/vnd.oci.image.manifest.v1+json"
	imageSettings = "application/vnd.oci.image.config.v1+json"
	imageLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	// nobody is the user of the container, as in other images without a shell.
	nobody      = 65532
	data        = "/var/lib/tokenturn"
	healthcheck = "usr/libexec/tokenturn/healthcheck"
)

// layout collects the blobs of an image by their digests.
type layout struct{ files []file }

func (l *layout) add(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	name := hex.EncodeToString(sum[:])
	l.files = append(l.files, file{path: "blobs/sha256/" + name, mode: 0o644, content: content})
	return descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: len(content)}
}

func (l *layout) addJSON(mediaType string, v any) (descriptor, error) {
	content, err := json.Marshal(v)
	return l.add(mediaType, content), err
}

// image writes the layout. No daemon takes part.
func (r *release) image(ctx context.Context) error {
	roots := exec.CommandContext(ctx, "go", "run", ".")
	roots.Dir = filepath.Join(r.root, tools)
	certificates, err := output(roots)
	if err != nil {
		return err
	}
	l := layout{}
	manifests := index{SchemaVersion: 2, MediaType: imageIndex}
	for _, p := range r.platforms {
		if p.system != "linux" {
			continue
		}
		files, err := r.rootFiles(ctx, p, certificates)
		if err != nil {
			return err
		}
		added, err := l.addImage(files, p, r.version, r.time)
		if err != nil {
			return err
		}
		manifests.Manifests = append(manifests.Manifests, added)
	}
	both, err := l.addJSON(imageIndex, manifests)
	if err != nil {
		return err
	}
	both.Annotations = map[string]string{"org.opencontainers.image.ref.name": r.number(),
		"io.containerd.image.name": "docker.io/tokenturn/tokenturn:" + r.number()}
	top, err := json.Marshal(index{SchemaVersion: 2, MediaType: imageIndex, Manifests: []descriptor{both}})
	if err != nil {
		return err
	}
	files := append([]file{
		{path: "oci-layout", mode: 0o644, content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{path: "index.json", mode: 0o644, content: top},
		{path: "blobs/", mode: 0o755}, {path: "blobs/sha256/", mode: 0o755},
	}, l.files...)
	packed, err := tarred(files, r.time)
	if err != nil {
		return err
	}
	return r.write(r.name("oci.tar"), packed)
}

// rootFiles are all files in the container.
func (r *release) rootFiles(ctx context.Context, p platform, certificates []byte) ([]file, error) {
	check, err := r.compile(ctx, "infra/dist/healthcheck", p)
	if err != nil {
		return nil, err
	}
	users := "root:x:0:0:root:/:/sbin/nologin\n" +
		fmt.Sprintf("tokenturn:x:%d:%[1]d:tokenturn:%[2]s:/sbin/nologin\n", nobody, data)
	groups := fmt.Sprintf("root:x:0:\ntokenturn:x:%d:\n", nobody)
	files := []file{
		{path: "etc/", mode: 0o755},
		{path: "etc/group", mode: 0o644, content: []byte(groups)},
		{path: "etc/passwd", mode: 0o644, content: []byte(users)},
		{path: "etc/ssl/", mode: 0o755}, {path: "etc/ssl/certs/", mode: 0o755},
		{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: certificates},
		{path: "tmp/", mode: 0o777 | fs.ModeSticky},
		{path: "usr/", mode: 0o755}, {path: "usr/bin/", mode: 0o755},
		{path: "usr/libexec/", mode: 0o755}, {path: "usr/libexec/tokenturn/", mode: 0o755},
		{path: "usr/share/", mode: 0o755}, {path: "usr/share/doc/", mode: 0o755},
		{path: "usr/share/doc/tokenturn/", mode: 0o755},
		{path: "var/", mode: 0o755}, {path: "var/lib/", mode: 0o755},
		{path: data[1:] + "/", mode: 0o700, owner: nobody},
	}
	for _, from := range []struct {
		source, path string
		mode         fs.FileMode
	}{
		{filepath.Join(r.work, p.system, p.arch, filepath.Base(command)), "usr/bin/tokenturn", 0o755},
		{check, healthcheck, 0o755},
		{filepath.Join(r.root, "LICENSE"), "usr/share/doc/tokenturn/LICENSE", 0o644},
	} {
		content, err := os.ReadFile(from.source)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: from.path, mode: from.mode, content: content})
	}
	return files, nil
}

func (l *layout) addImage(files []file, p platform, version string, at time.Time) (descriptor, error) {
	plain, err := tarred(files, at)
	if err != nil {
		return descriptor{}, err
	}
	packed, err := gzipped(plain)
	if err != nil {
		return descriptor{}, err
	}
	labels := map[string]string{
		"org.opencontainers.image.title": "tokenturn", "org.opencontainers.image.description": description,
		"org.opencontainers.image.source": home, "org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version": version, "org.opencontainers.image.created": at.Format(time.RFC3339),
	}
	config := imageConfig{Created: at, Architecture: p.arch, OS: p.system, Config: containerConfig{
		User:         fmt.Sprintf("%d:%[1]d", nobody),
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		// With XDG_DATA_HOME, commands in the container find the data without --data.
		Env:        []string{"PATH=/usr/bin", "HOME=" + data, "XDG_DATA_HOME=" + filepath.Dir(data)},
		Entrypoint: []string{"/usr/bin/tokenturn"},
		Cmd:        []string{"serve", "--addr", ":8080"},
		Volumes:    map[string]struct{}{data: {}}, WorkingDir: data, StopSignal: "SIGTERM", Labels: labels,
	}}
	check := &config.Config.Healthcheck
	check.Test = []string{"CMD", "/" + healthcheck}
	check.Interval, check.Timeout, check.StartPeriod, check.Retries = 30*time.Second, 5*time.Second, 10*time.Second, 3
	sum := sha256.Sum256(plain)
	config.RootFS.Type, config.RootFS.DiffIDs = "layers", []string{"sha256:" + hex.EncodeToString(sum[:])}

	m := manifest{SchemaVersion: 2, MediaType: imageManifest, Layers: []descriptor{l.add(imageLayer, packed)},
		Annotations: labels}
	if m.Config, err = l.addJSON(imageSettings, config); err != nil {
		return descriptor{}, err
	}
	added, err := l.addJSON(imageManifest, m)
	added.Platform = &ociPlatform{p.arch, p.system}
	return added, err
}
