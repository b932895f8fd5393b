package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// file is an entry of an archive. A directory's path ends in a slash.
type file struct {
	path    string
	mode    fs.FileMode
	content []byte
	owner   int // user and group, in tar archives
}

// archive is a file for one platform, as the manifests of package managers name it.
type archive struct {
	platform
	name, sha256 string
}

// archive makes the archive of one platform: the command, its manual pages, completions and license, in one directory.
func (r *release) archive(ctx context.Context, p platform, pages []file) error {
	program, err := r.compile(ctx, command, p)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	files := []file{{path: p.program(), mode: 0o755, content: content}}
	for _, name := range []string{"LICENSE", "README.md"} {
		content, err := os.ReadFile(filepath.Join(r.root, name))
		if err != nil {
			return err
		}
		files = append(files, file{path: name, mode: 0o644, content: content})
	}
	files = append(files, pages...)
	dir := r.name(p.system + "_" + p.arch)
	for i := range files {
		files[i].path = path.Join(dir, files[i].path)
	}
	name, packed := dir+".tar.gz", []byte(nil)
	if p.system == "windows" {
		name = dir + ".zip"
		packed, err = zipped(files, r.time)
	} else {
		packed, err = tarGz(files, r.time)
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(packed)
	r.archives = append(r.archives, archive{p, name, hex.EncodeToString(sum[:])})
	return r.write(name, packed)
}

// functions makes the archives that AWS Lambda takes, with the program at the top, for each value of the parameter
// Architecture of template.yaml.
func (r *release) functions(ctx context.Context) error {
	for _, name := range []string{"rotate", "callback"} {
		for architecture, p := range architectures {
			program, err := r.compile(ctx, "functions/"+name, p, "lambda.norpc")
			if err != nil {
				return err
			}
			content, err := os.ReadFile(program)
			if err != nil {
				return err
			}
			packed, err := zipped([]file{{path: "bootstrap", mode: 0o755, content: content}}, r.time)
			if err != nil {
				return err
			}
			if err := r.write(r.name("lambda_"+name+"_"+architecture+".zip"), packed); err != nil {
				return err
			}
		}
	}
	return nil
}

// architectures are the platforms of Lambda's functions, by the names that Lambda gives them.
var architectures = map[string]platform{"arm64": {"linux", "arm64"}, "x86_64": {"linux", "amd64"}}

// tarGz packs files in their order. Nothing but files and time determines the bytes.
func tarGz(files []file, at time.Time) ([]byte, error) {
	plain, err := tarred(files, at)
	if err != nil {
		return nil, err
	}
	return gzipped(plain)
}

func tarred(files []file, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: tarMode(f.mode), Size: int64(len(f.content)),
			Uid: f.owner, Gid: f.owner, ModTime: at, Format: tar.FormatUSTAR}
		if isDir(f) {
			header.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func isDir(f file) bool { return f.path[len(f.path)-1] == '/' }

func tarMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}

// gzipped compresses without a name and a time.
func gzipped(content []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(content); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func zipped(files []file, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.path, Method: zip.Deflate, Modified: at}
		header.SetMode(f.mode)
		w, err := z.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
