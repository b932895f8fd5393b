// Package logo reads the logo that an operator gives for the consent page, and makes a file
// of its own from it: nothing of the given file is kept as it was. A PNG is decoded, made
// small and encoded again. An SVG is parsed, and what this package knows to be only a
// drawing is written again; a file with anything else is refused.
package logo

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

const (
	// MaxFile is the largest file in bytes that Read accepts.
	MaxFile = 1 << 20
	// maxStored bounds the result: the logo is stored with the app credentials, and a value
	// in AWS Secrets Manager has at most 64 KiB.
	maxStored = 24 << 10
)

// The media types of a logo.
const (
	PNG = "image/png"
	SVG = "image/svg+xml"
)

// Logo is a checked image.
type Logo struct {
	Type string // PNG or SVG
	Data []byte
}

// Read makes a logo of the content of a file. The error says what a person can change.
func Read(file []byte) (Logo, error) {
	switch start := bytes.TrimLeft(bytes.TrimPrefix(file, []byte("\xef\xbb\xbf")), " \t\r\n"); {
	case len(file) > MaxFile:
		return Logo{}, fmt.Errorf("the file has more than %d KiB", MaxFile>>10)
	case bytes.HasPrefix(file, []byte("\x89PNG\r\n\x1a\n")):
		data, err := readPNG(file)
		return Logo{PNG, data}, err
	case bytes.HasPrefix(start, []byte("<")):
		data, err := readSVG(start)
		return Logo{SVG, data}, err
	}
	return Logo{}, errors.New("the file is neither a PNG nor an SVG")
}

// URL returns the logo as a data: URL, the form in which it is stored.
func (l Logo) URL() string {
	return "data:" + l.Type + ";base64," + base64.StdEncoding.EncodeToString(l.Data)
}
