package embedded

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// keyPrefix starts a key file; 32 bytes in unpadded base64url follow, and a newline.
const keyPrefix = "tokenturn-key-1 "

// keys are derived from the key file: one key for each purpose, so that bytes sealed for
// one purpose do not open for another.
type keys struct {
	id           string // identifies the key file without disclosing it
	dataKeys     cipher.AEAD
	versions     cipher.AEAD
	applications cipher.AEAD
}

// loadKeys reads the key file, which it makes first if it is missing and mayCreate is set.
func loadKeys(path string, mayCreate bool) (keys, error) {
	text, err := readKey(path)
	if errors.Is(err, os.ErrNotExist) {
		if !mayCreate {
			return keys{}, fmt.Errorf("the key file %s is missing; nothing in %s can be opened without it: "+
				"restore it from a backup, or move the database away to start with an empty one", path, DatabaseName)
		}
		if err := createKey(path); err != nil {
			return keys{}, err
		}
		text, err = readKey(path)
	}
	if err != nil {
		return keys{}, err
	}
	master, ok := parseKey(text)
	if !ok {
		return keys{}, fmt.Errorf("%s is not a key file of tokenturn, or is damaged; restore the right one", path)
	}
	return deriveKeys(master)
}

// formatKey returns the text of a key file.
func formatKey(master []byte) string {
	return keyPrefix + base64.RawURLEncoding.EncodeToString(master) + "\n"
}

// parseKey is the reverse of formatKey and accepts no other spelling of a key.
func parseKey(text string) (master []byte, ok bool) {
	master, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(text, keyPrefix)))
	return master, err == nil && len(master) == 32 && formatKey(master) == text
}

// readKey returns the text of a key file that only its owner may read.
func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("reading the key file: %w", err)
	}
	if others := info.Mode().Perm() & 0o077; others != 0 {
		return "", fmt.Errorf("other users may read the key file %s (mode %04o); "+
			"if no other user can have read it, run: chmod 600 '%s'", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return "", fmt.Errorf("reading the key file: %w", err)
	}
	return string(text), nil
}

// createKey makes the key file. If several processes try, one wins.
func createKey(path string) error {
	master := make([]byte, 32)
	rand.Read(master) // never fails: on an error it ends the program
	return place(path, func(draft string) error {
		f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString(formatKey(master))
		return errors.Join(err, f.Close())
	})
}

func deriveKeys(master []byte) (keys, error) {
	var errs []error
	derive := func(purpose string) []byte {
		key, err := hkdf.Key(sha256.New, master, nil, "tokenturn embedded store: "+purpose, 32)
		errs = append(errs, err)
		return key
	}
	aead := func(purpose string) cipher.AEAD {
		block, err := aes.NewCipher(derive(purpose))
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		gcm, err := cipher.NewGCMWithRandomNonce(block)
		errs = append(errs, err)
		return gcm
	}
	k := keys{
		id:           hex.EncodeToString(derive("id")),
		dataKeys:     aead("data keys"),
		versions:     aead("vault versions"), // the name is part of the key: it must not change
		applications: aead("app credentials"),
	}
	return k, errors.Join(errs...)
}

// seal encrypts plain for the row that identity names: the bytes do not open in another
// row.
func seal(key cipher.AEAD, plain string, identity ...string) []byte {
	return key.Seal(nil, nil, []byte(plain), fmt.Appendf(nil, "%q", identity))
}

// unseal is the reverse of seal.
func unseal(key cipher.AEAD, sealed []byte, identity ...string) (string, error) {
	plain, err := key.Open(nil, nil, sealed, fmt.Appendf(nil, "%q", identity))
	if err != nil {
		return "", errors.New("the sealed bytes are damaged or belong to another row; restore a backup of the database")
	}
	return string(plain), nil
}
