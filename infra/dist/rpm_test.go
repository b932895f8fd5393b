//go:build conformance

package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"
)

// The tags of an RPM's header that the tests read: https://rpm-software-management.github.io/rpm/manual/tags.html
const (
	rpmVersion, rpmRelease, rpmArch, rpmBuildHost = 1001, 1002, 1022, 1007
	rpmModes, rpmFlags                            = 1030, 1037
	rpmDirIndexes, rpmBaseNames, rpmDirNames      = 1116, 1117, 1118
	rpmUsers                                      = 1039
	rpmPostIn, rpmPreUn, rpmPostUn                = 1024, 1025, 1026
	rpmPayloadCompressor                          = 1125
	rpmHeaderSHA256                               = 273 // in the signature
	rpmConfig                                     = 1 | 1<<4
)

// rpmHeader is one header of a package: the values of each tag.
type rpmHeader map[uint32][]any

// readRPM reads the signature and the header of a package, checks the digest of the second, and gives the payload.
func readRPM(t *testing.T, content []byte) (header rpmHeader, payload []byte) {
	t.Helper()
	if !bytes.HasPrefix(content, []byte{0xed, 0xab, 0xee, 0xdb}) {
		t.Fatal("no RPM")
	}
	signature, size := readHeader(t, content[96:])
	rest := content[96+(size+7)/8*8:]
	header, size = readHeader(t, rest)
	if sum := sha256.Sum256(rest[:size]); !slices.Equal(signature[rpmHeaderSHA256], []any{hex.EncodeToString(sum[:])}) {
		t.Errorf("the header's digest is %x, the signature has %v", sum, signature[rpmHeaderSHA256])
	}
	return header, rest[size:]
}

// readHeader reads the header at the start of content: an index of tags, and a store of their values.
func readHeader(t *testing.T, content []byte) (header rpmHeader, size int) {
	t.Helper()
	if !bytes.HasPrefix(content, []byte{0x8e, 0xad, 0xe8, 1}) {
		t.Fatal("no header of an RPM")
	}
	u32 := func(at int) int { return int(binary.BigEndian.Uint32(content[at:])) }
	entries, length := u32(8), u32(12)
	store := content[16+16*entries:]
	header = rpmHeader{}
	for i := range entries {
		tag, kind, offset, count := u32(16+16*i), u32(20+16*i), u32(24+16*i), u32(28+16*i)
		value := store[offset:]
		for range count {
			switch kind {
			case 3:
				header[uint32(tag)] = append(header[uint32(tag)], int(binary.BigEndian.Uint16(value)))
				value = value[2:]
			case 4:
				header[uint32(tag)] = append(header[uint32(tag)], int(binary.BigEndian.Uint32(value)))
				value = value[4:]
			case 6, 8, 9:
				text, rest, _ := bytes.Cut(value, []byte{0})
				header[uint32(tag)] = append(header[uint32(tag)], string(text))
				value = rest
			}
		}
	}
	return header, 16 + 16*entries + length
}

// The .rpm holds the files of the .deb, with the places that differ.
func TestRPM(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		header, payload := readRPM(t, []byte(readFile(t, firstBuild(t), "tokenturn_"+testNumber+"_linux_"+arch+".rpm")))
		found := map[string]string{}
		for i, name := range header[rpmBaseNames] {
			path := fmt.Sprint(header[rpmDirNames][header[rpmDirIndexes][i].(int)], name)
			mode := fs.FileMode(header[rpmModes][i].(int) & 0o7777)
			found[path] = fmt.Sprintf("%v %v %v", mode, header[rpmUsers][i], header[rpmFlags][i])
		}
		for path, want := range map[string]string{
			"/usr/bin/tokenturn":                               "-rwxr-xr-x root 0",
			"/usr/lib/systemd/system/tokenturn.service":        "-rw-r--r-- root 0",
			"/etc/default/tokenturn":                           fmt.Sprintf("-rw-r----- root %d", rpmConfig),
			"/usr/share/man/man1/tokenturn-serve.1.gz":         "-rw-r--r-- root 0",
			"/usr/share/zsh/site-functions/_tokenturn":         "-rw-r--r-- root 0",
			"/usr/share/bash-completion/completions/tokenturn": "-rw-r--r-- root 0",
		} {
			if found[path] != want {
				t.Errorf("%s: %s is %q, not %q", arch, path, found[path], want)
			}
		}
		machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
		for tag, want := range map[uint32]string{rpmVersion: testNumber, rpmRelease: "1", rpmArch: machine,
			rpmBuildHost: "localhost", rpmPayloadCompressor: "gzip"} {
			if !slices.Equal(header[tag], []any{want}) {
				t.Errorf("%s: tag %d is %v, not %s", arch, tag, header[tag], want)
			}
		}
		for tag, script := range map[uint32]string{rpmPostIn: "after-install", rpmPreUn: "before-remove",
			rpmPostUn: "after-remove"} {
			if want := readFile(t, "package", script); !slices.Equal(header[tag], []any{want}) {
				t.Errorf("%s: tag %d is not %s", arch, tag, script)
			}
		}
		z, err := gzip.NewReader(bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		if cpio, err := io.ReadAll(z); err != nil || !bytes.HasPrefix(cpio, []byte("070701")) {
			t.Errorf("%s: the payload is no cpio archive: %v", arch, err)
		}
	}
}
