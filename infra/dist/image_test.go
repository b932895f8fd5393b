//go:build conformance

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The layout leads from its index to one image for each processor. The container of this one starts as its
// configuration says, without a shell or a library, and its health check says that it serves.
func TestImage(t *testing.T) {
	archive := tar.NewReader(strings.NewReader(readFile(t, firstBuild(t), "tokenturn_"+testNumber+"_oci.tar")))
	var files []file
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{path: h.Name, content: content})
	}
	var top, both index
	for _, f := range files {
		if f.path == "index.json" {
			unmarshal(t, f.content, &top)
		}
	}
	unmarshal(t, blob(t, files, top.Manifests[0]), &both)
	if len(both.Manifests) != 2 {
		t.Fatalf("%+v", both)
	}
	for _, d := range both.Manifests {
		var m manifest
		var config imageConfig
		unmarshal(t, blob(t, files, d), &m)
		unmarshal(t, blob(t, files, m.Config), &config)
		if d.Platform.Architecture == runtime.GOARCH {
			runImage(t, blob(t, files, m.Layers[0]), config.Config)
		} else {
			blob(t, files, m.Layers[0])
		}
	}
}

func runImage(t *testing.T, layer []byte, config containerConfig) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("the test needs root, to change the root directory")
	}
	root := unpacked(t, layer)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(readFile(t, root, "etc/ssl/certs/ca-certificates.crt"))) {
		t.Error("there are no certificates")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	contained := func(args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env, cmd.Dir = config.Env, config.WorkingDir
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	check := append(config.Healthcheck.Test[1:], port)
	if out, err := contained(check...).CombinedOutput(); err == nil {
		t.Errorf("healthy before the start: %s", out)
	}
	command := append(config.Entrypoint, config.Cmd...)
	for i := range command {
		command[i] = strings.ReplaceAll(command[i], ":8080", ":"+port)
	}
	var log lockedBuffer
	serve := contained(command...)
	serve.Stdout, serve.Stderr = &log, &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer serve.Process.Kill() // it has ended if the test has passed
	log.await(t, "Serving http://localhost:"+port)
	if out, err := contained(check...).CombinedOutput(); err != nil {
		t.Errorf("not healthy: %v\n%s\n%s", err, out, log.String())
	}
	if out, err := contained(config.Entrypoint[0], "connection", "list").CombinedOutput(); err != nil {
		t.Errorf("a command in the container does not find the data: %v\n%s", err, out)
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := serve.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log.String())
	}
	for name := range config.Volumes {
		if info, err := os.Stat(filepath.Join(root, name, "tokenturn.db")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the data is not in the volume: %v, %v", info, err)
		}
	}
}

// unpacked writes the files of a layer, with their owners and modes.
func unpacked(t *testing.T, layer []byte) (root string) {
	t.Helper()
	root = t.TempDir()
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	z, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return root
		} else if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, content, 0o600)
		}
		if err == nil {
			err = os.Chown(path, h.Uid, h.Gid)
		}
		if err == nil {
			err = os.Chmod(path, h.FileInfo().Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
