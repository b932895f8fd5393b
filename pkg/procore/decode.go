package procore

import (
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	maxLayers = 4       // nested encodings that are decoded
	maxText   = maxBody // longest unpacked answer, as for an answer that is not compressed
	leastText = 16      // bytes of text that prove that a broken stream was a compressed one
	leastPage = 64      // shortest text that can be recognized as such although it is not UTF-8
)

// reading is what decode makes of an answer's bytes.
type reading struct {
	text string
	// explained: every byte that arrived is text or belongs to a known encoding
	// of it. The end of the text may still be missing, if the end of the answer was.
	explained bool
	packed    bool   // the text was in a compressed stream
	odd       string // what is wrong with the encoding, for people; empty if nothing is
}

// decode reads an answer as text: UTF-8 with or without a byte order mark, a
// superset of ASCII, UTF-16, or one of these in gzip or deflate (RFC 1952, 1951
// and 1950), which servers and gateways use in spite of
// Accept-Encoding: identity. Headers are not read, because they are not saved.
//
// A compressed stream that is cut off gives the text before the cut, and that is
// explained: no program can ever find more in it. A damaged or overlong stream, and
// bytes in no known encoding, are not explained.
func decode(body string, layers int) reading {
	if text, ok := plainText(body); ok {
		return reading{text: text, explained: true}
	}
	if layers > 0 {
		for _, unpack := range []unpacker{fromGzip, fromZlib, fromDeflate} {
			if r, ok := unpack.read(body, layers-1); ok {
				return r
			}
		}
	}
	return reading{text: body, odd: "the encoding of the answer is unknown"}
}

// unpacker decodes one kind of compression.
type unpacker struct {
	open    func(io.Reader) (io.Reader, error)
	magic   string // start of every such stream; empty if the start does not identify it
	checked bool   // a complete stream ends in a checksum
}

var (
	fromGzip    = unpacker{func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }, "\x1f\x8b\x08", true}
	fromZlib    = unpacker{func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }, "", true}
	fromDeflate = unpacker{func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil }, "", false}
)

// read unpacks body with u. ok is false if nothing proves that body is such a
// stream: neither magic, nor checksum, nor enough text in it.
func (u unpacker) read(body string, layers int) (_ reading, ok bool) {
	if !strings.HasPrefix(body, u.magic) {
		return reading{}, false
	}
	unpacked, err := u.unpack(body)
	brokenOff := errors.Is(err, io.ErrUnexpectedEOF)
	r := decode(unpacked, layers)
	r.packed = true
	switch {
	case err == nil && u.checked, brokenOff && u.magic != "":
	case !r.explained || len(r.text) < leastText:
		return reading{}, false
	}
	switch {
	case errors.Is(err, errTooLong):
		r.explained, r.odd = false, "the unpacked answer is too long"
	case err != nil && !brokenOff:
		r.explained, r.odd = false, "the compressed answer is damaged"
	}
	return r, true
}

var (
	errTooLong  = errors.New("more than maxText bytes")
	errTrailing = errors.New("bytes after the end")
)

// unpack returns what body contains before err.
func (u unpacker) unpack(body string) (string, error) {
	in := strings.NewReader(body) // an io.ByteReader, so the decompressor does not read ahead
	r, err := u.open(in)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	switch n, err := io.Copy(&out, io.LimitReader(r, maxText+1)); {
	case err != nil:
		return out.String(), err
	case n > maxText:
		return out.String()[:maxText], errTooLong
	case in.Len() > 0:
		return out.String(), errTrailing
	}
	return out.String(), nil
}

const byteOrderMark = "\uFEFF"

// plainText reads an uncompressed body. ok is false if it is not text.
func plainText(body string) (text string, ok bool) {
	text = strings.TrimPrefix(body, byteOrderMark)
	if likeText(text) {
		return text, true
	}
	return fromUTF16(body)
}

// likeText reports whether text is UTF-8, perhaps cut off within a character, or
// in some other superset of ASCII and mostly ASCII, such as an old web page. Text
// has none of the bytes that the WHATWG calls binary data bytes
// (https://mimesniff.spec.whatwg.org/#binary-data-byte). In a compressed or
// encrypted answer, one byte in ten is one of them.
func likeText(text string) bool {
	ascii := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c <= 0x08, c == 0x0b, 0x0e <= c && c <= 0x1a, 0x1c <= c && c <= 0x1f:
			return false
		case c < utf8.RuneSelf:
			ascii++
		}
	}
	return utf8.ValidString(wholeRunes(text)) || len(text) >= leastPage && ascii >= len(text)-len(text)/4
}

// wholeRunes removes an incomplete character at the end of text.
func wholeRunes(text string) string {
	for i := len(text) - 1; i >= 0 && i >= len(text)-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRuneInString(text[i:]) {
				return text[:i]
			}
			break
		}
	}
	return text
}

// fromUTF16 reads UTF-16 with a byte order mark or, without one, in the byte order
// in which the text is mostly ASCII. Every other byte is then zero, so at most one
// order fits.
func fromUTF16(body string) (text string, ok bool) {
	for _, order := range []struct {
		mark      string
		high, low int
	}{{"\xff\xfe", 1, 0}, {"\xfe\xff", 0, 1}} {
		rest, marked := strings.CutPrefix(body, order.mark)
		units := make([]uint16, len(rest)/2) // an odd last byte is part of a cut character
		ascii := 0
		for i := range units {
			units[i] = uint16(rest[2*i+order.high])<<8 | uint16(rest[2*i+order.low])
			if units[i] < utf8.RuneSelf {
				ascii++
			}
		}
		if !marked && (len(units) == 0 || ascii < len(units)-len(units)/4) {
			continue
		}
		text := string(utf16.Decode(wholePairs(units)))
		if likeText(text) && !strings.ContainsRune(text, utf8.RuneError) {
			return text, true
		}
	}
	return "", false
}

// wholePairs removes half a surrogate pair at the end of units.
func wholePairs(units []uint16) []uint16 {
	if n := len(units); n > 0 && 0xd800 <= units[n-1] && units[n-1] < 0xdc00 {
		return units[:n-1]
	}
	return units
}
