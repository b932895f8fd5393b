package procore

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func gzipped(text string) string {
	return packed(text, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
}

func zlibbed(text string) string {
	return packed(text, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) })
}

func deflated(text string) string {
	return packed(text, func(w io.Writer) io.WriteCloser { d, _ := flate.NewWriter(w, 9); return d })
}

// stored is gzip without compression: its bytes show the text.
func stored(text string) string {
	return packed(text, func(w io.Writer) io.WriteCloser { g, _ := gzip.NewWriterLevel(w, 0); return g })
}

func packed(text string, with func(io.Writer) io.WriteCloser) string {
	var b bytes.Buffer
	w := with(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

func utf16As(text, mark string, order binary.AppendByteOrder) string {
	b := []byte(mark)
	for _, unit := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

func inUTF16(text string) string { return utf16As(text, "\xff\xfe", binary.LittleEndian) }

func inBase64(text string) string { b, _ := base64.StdEncoding.DecodeString(text); return string(b) }

// whole as two encoders write it that decode does not know.
var (
	inBrotli = inBase64("G4AAIAT+22bqLytoENm1cvyJYeXCsSJjOjkNMDBtLfk1CzALgDu4DU/Bp66IZNQf6ehIH4ylUJ46GAqC" +
		"85EY91bupJDp+BPYeAsjMdJXBMZSKE91VN1217t9XqM1fg==")
	inZstandard = inBase64("KLUv/SSB9QIA8oUTGKApHQ2P3mWJsn/X9FumKh79uIcog/4XIQ3btgthELAmPMMTPk2rCPQ8PFu2oFjP" +
		"ceh5IIu3mk98odYjSbpWAUniQVPreUKRDqEbg2UEBAA6GdCCsey8jhwmHhhR5+g=")
)

// encodings are all that decode reads, and some of them nested.
var encodings = map[string]func(string) string{
	"UTF-8 with a mark":   func(text string) string { return "\uFEFF" + text },
	"UTF-16LE":            inUTF16,
	"UTF-16BE":            func(text string) string { return utf16As(text, "\xfe\xff", binary.BigEndian) },
	"UTF-16LE, no mark":   func(text string) string { return utf16As(text, "", binary.LittleEndian) },
	"UTF-16BE, no mark":   func(text string) string { return utf16As(text, "", binary.BigEndian) },
	"gzip":                gzipped,
	"gzip, stored":        stored,
	"gzip in two members": func(text string) string { return gzipped(text[:len(text)/2]) + gzipped(text[len(text)/2:]) },
	"deflate":             zlibbed,
	"raw deflate":         deflated,
	"gzip of UTF-16":      func(text string) string { return gzipped(inUTF16(text)) },
	"deflate of UTF-16BE": func(text string) string { return zlibbed(utf16As(text, "", binary.BigEndian)) },
	"raw deflate, marked": func(text string) string { return deflated("\uFEFF" + text) },
	"gzip of gzip":        func(text string) string { return gzipped(gzipped(text)) },
	"four layers":         func(text string) string { return gzipped(deflated(zlibbed(gzipped(text)))) },
}

// An answer means the same in each known encoding: a pair, a page, nothing.
func TestParseDecodes(t *testing.T) {
	texts := map[string]string{"a pair": whole, "a pair cut off": whole[:len(whole)-3], "no pair": whole[:60],
		"an access token alone": strings.Replace(whole, "refresh_token", "x", 1),
		"two refresh tokens":    whole + strings.Replace(whole, "canary-refresh", "canary-other", 1),
		"a page":                "<!DOCTYPE html><title>Down for maintenance – back soon</title>"}
	for name, encode := range encodings {
		t.Run(name, func(t *testing.T) {
			for what, text := range texts {
				got := Parse(token.NewSecret(encode(text)))
				if want := Parse(token.NewSecret(text)); got != want {
					t.Errorf("%s is %s (%s), pair %s; want %s (%s)", what, got.Verdict, got.Reason, open(got.Pair), want.Verdict,
						want.Reason)
				}
				noCanary(t, got)
			}
		})
	}
	for name, empty := range map[string]string{"gzip": gzipped(""), "deflate": zlibbed(""), "UTF-8": "\uFEFF",
		"UTF-16": inUTF16(""), "spaces": gzipped(" \n")} {
		if got := Parse(token.NewSecret(empty)); got.Verdict != rotation.Empty || got.Reason != "the answer is empty" {
			t.Errorf("nothing in %s is %s, %s", name, got.Verdict, got.Reason)
		}
	}
}

// Bytes in an unknown encoding are never taken for an answer without a pair.
func TestParseUnreadable(t *testing.T) {
	flawed := []byte(gzipped("<html>" + strings.Repeat("a page without a token", 9)))
	flawed[len(flawed)-8] ^= 1
	for name, c := range map[string]struct{ body, reason string }{
		"brotli":                   {inBrotli, noEncoding},
		"zstd":                     {inZstandard, noEncoding},
		"gzip of brotli":           {gzipped(inBrotli), noEncoding},
		"five layers":              {gzipped(gzipped(deflated(zlibbed(gzipped(whole))))), noEncoding},
		"gzip backwards":           {backwards(gzipped(whole)), noEncoding},
		"gzip without its head":    {gzipped(whole)[1:], noEncoding},
		"a page and a gzip stream": {"<html>wait</html>" + gzipped(whole), noEncoding},
		"gzip, its checksum wrong": {string(flawed), damaged},
		"gzip and more":            {gzipped("<html>"+strings.Repeat("a page", 9)) + inBrotli, damaged},
		"deflate and more":         {zlibbed("<html>"+strings.Repeat("a page", 9)) + inBrotli, damaged},
		"a page without end":       {gzipped("<html>" + strings.Repeat(" ", 4<<20)), tooLong},
		"a pair without end":       {gzipped(whole + strings.Repeat(" ", 4<<20)), tooLong},
		"a pair no secret holds": {gzipped(strings.Replace(whole, "canary-access", strings.Repeat("a", 60<<10), 1)),
			tooLong},
		"zeros":                    {strings.Repeat("\x00", 100), noEncoding},
		"half a character":         {"\x00", noEncoding},
		"UTF-16, no pair of bytes": {"\xff\xfe\x00\xdc\x41\x00", noEncoding},
		"UTF-32":                   {"\x00\x00\x00" + strings.Join(strings.Split(whole, ""), "\x00\x00\x00"), noEncoding},
	} {
		t.Run(name, func(t *testing.T) {
			got := Parse(token.NewSecret(c.body))
			if got.Verdict != rotation.Unreadable || got.Reason != c.reason || got.Pair != (token.Pair{}) {
				t.Errorf("got %s (%s), pair %s", got.Verdict, got.Reason, open(got.Pair))
			}
			if n := len(decode(c.body, maxLayers).text); n > maxText {
				t.Errorf("it was unpacked to %d bytes", n)
			}
			noCanary(t, got)
		})
	}
	t.Run("encrypted", func(t *testing.T) {
		source := rand.NewChaCha8([32]byte{})
		for _, size := range []int{32, 64, 100, 129, 250, 1000} {
			for range 500 {
				body := make([]byte, size)
				_, _ = source.Read(body)
				if got := Parse(token.NewSecret(string(body))); got.Verdict != rotation.Unreadable {
					t.Fatalf("%x is %s (%s)", body, got.Verdict, got.Reason)
				}
			}
		}
	})
}

func backwards(text string) string {
	var b strings.Builder
	for i := len(text) - 1; i >= 0; i-- {
		b.WriteByte(text[i])
	}
	return b.String()
}

// One complete token is used even if the other bytes are in an unknown encoding.
func TestParseSalvagesFromDamage(t *testing.T) {
	flawed := []byte(gzipped(whole))
	flawed[len(flawed)-8] ^= 1
	const uncompressed = "\x0b\x40" + whole + "\x03" // brotli, which stores what it cannot make shorter
	for name, c := range map[string]struct{ body, reason string }{
		"brotli, stored":           {uncompressed, notJSON},
		"gzip of brotli, stored":   {gzipped(uncompressed), notJSON},
		"gzip, its checksum wrong": {string(flawed), damaged},
		"gzip and more":            {gzipped(whole) + "0123456789", damaged},
		"deflate and more":         {zlibbed(whole) + "\x00", damaged},
		"raw deflate and more":     {deflated(whole) + "\x00", damaged},
	} {
		got := Parse(token.NewSecret(c.body))
		if got.Verdict != rotation.Salvaged || got.Reason != c.reason || got.Pair != Parse(token.NewSecret(whole)).Pair {
			t.Errorf("%s: got %s (%s), pair %s", name, got.Verdict, got.Reason, open(got.Pair))
		}
	}
}

// A compressed answer that is cut off gives what was in it before the cut: the pair,
// or nothing. Bytes that never arrived hide nothing, so this needs no person. If too
// little arrived to identify the compression, it does.
func TestParseCompressedCutAnywhere(t *testing.T) {
	pair := Parse(token.NewSecret(whole)).Pair
	for name, encode := range encodings {
		if strings.HasPrefix(name, "UTF") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			body := encode(whole)
			seen := map[rotation.Verdict]int{}
			for n := range len(body) {
				got := Parse(token.NewSecret(body[:n]))
				seen[got.Verdict]++
				switch {
				case got.Pair.RefreshToken.IsZero() && got.Verdict != rotation.Empty && got.Verdict != rotation.Unreadable,
					!got.Pair.RefreshToken.IsZero() && got.Pair.RefreshToken != pair.RefreshToken,
					!got.Pair.AccessToken.IsZero() && got.Pair.AccessToken != pair.AccessToken,
					got.Verdict == rotation.Empty && seen[rotation.Salvaged] > 0,
					got.Verdict == rotation.Unreadable && n >= 3 && name == "gzip":
					t.Errorf("cut after %d of %d bytes: %s (%s), pair %s", n, len(body), got.Verdict, got.Reason, open(got.Pair))
				}
			}
			if seen[rotation.Salvaged] == 0 {
				t.Errorf("no cut leaves the pair: %v", seen)
			}
		})
	}
	body := gzipped(whole) // which ends in a checksum and the length
	if got := Parse(token.NewSecret(body[:len(body)-8])); got.Verdict != rotation.Sound {
		t.Errorf("without its last eight bytes: %s (%s)", got.Verdict, got.Reason)
	}
}

// A text that may hold a pair in a form that is not known is never taken for one
// without a pair; one that only speaks of refresh tokens is.
func TestParseUnknownForms(t *testing.T) {
	twice, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"JSON in a string":         string(twice),
		"JSON in a field":          `{"statusCode":200,"body":` + string(twice) + `}`,
		"base64":                   base64.StdEncoding.EncodeToString([]byte(whole)),
		"hex":                      hex.EncodeToString([]byte(whole)),
		"XML":                      `<r><access_token>canary-a</access_token><refresh_token>canary-refresh</refresh_token></r>`,
		"HTML":                     `<pre>{&quot;refresh_token&quot;:&quot;canary-refresh&quot;}</pre>`,
		"YAML":                     "access_token: canary-access\nrefresh_token: canary-refresh\nexpires_in: 5400\n",
		"single quotes":            `{'access_token': 'canary-access', 'refresh_token': 'canary-refresh'}`,
		"camel case":               `{"accessToken":"canary-access","refreshToken":"canary-refresh"}`,
		"a token within an object": `{"access_token":"canary-access","refresh_token":{"value":"canary-refresh"}}`,
	} {
		got := Parse(token.NewSecret(body))
		if got.Verdict != rotation.Unreadable {
			t.Errorf("%s is %s (%s)", name, got.Verdict, got.Reason)
		}
		noCanary(t, got)
	}
	for name, body := range map[string]string{
		"an error":                 `{"error":"invalid_request","error_description":"Missing required parameter: refresh_token."}`,
		"a page":                   "<html><title>Sign in</title>Your refresh token is invalid. Please sign in again.</html>",
		"none":                     `{"access_token":"canary-access","refresh_token":null,"token_type":"bearer","expires_in":5400x}`,
		"cut off before the value": `{"access_token":"canary-access","refresh_token":`,
		"cut off within the value": `{"access_token":"canary-access","refresh_token":"canary-refre`,
	} {
		if got := Parse(token.NewSecret(body)); got.Verdict != rotation.Empty {
			t.Errorf("%s is %s (%s)", name, got.Verdict, got.Reason)
		}
	}
}

// A text has the same meaning in every encoding, and what is left of it after a cut
// is its beginning.
func FuzzParseDecodes(f *testing.F) {
	names := slices.Sorted(maps.Keys(encodings))
	for i, text := range []string{whole, whole[:60], "<html>Caf\xe9</html>", "refresh_token=a&xxxxxxxxxxx",
		strings.Repeat("{", 100), whole + whole} {
		f.Add(text, byte(i), uint(40))
	}
	f.Fuzz(func(t *testing.T, text string, which byte, cut uint) {
		text = strings.TrimPrefix(text, byteOrderMark)
		name := names[int(which)%len(names)]
		body := encodings[name](text)
		rest := body[:cut%uint(len(body)+1)]
		switch {
		case len(text) > maxPair, len(text) < leastText, !likeText(text), strings.Contains(name, "UTF-16") && !ascii(text):
			return
		case strings.Contains(name, "deflate") && (looksPlain(body) || looksPlain(rest)): // by chance
			return
		}
		want := parseText(text)
		if got := Parse(token.NewSecret(body)); got != want {
			t.Errorf("%q is %s (%s) in %s; want %s (%s)", text, got.Verdict, got.Reason, name, want.Verdict, want.Reason)
		}
		read := decode(rest, maxLayers)
		part := strings.TrimPrefix(read.text, byteOrderMark)
		if name == "four layers" && beginsLike(deflated(zlibbed(gzipped(text))), read.text) {
			return // the first bytes of a raw stream may look like text, and nothing comes after them
		}
		if read.explained && !strings.HasPrefix(text, part) && !strings.HasPrefix(byteOrderMark, part) {
			t.Errorf("%q cut off in %s becomes %q", text, name, read.text)
		}
	})
}

// beginsLike reports whether text is what a part from the beginning of body looks like, also
// in UTF-16.
func beginsLike(body, text string) bool {
	for n := range min(len(body), 2*len(text)+3) + 1 {
		if read, ok := plainText(body[:n]); ok && read == text {
			return true
		}
	}
	return false
}

func looksPlain(body string) bool {
	_, ok := plainText(body)
	return ok
}

func ascii(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 })
}
