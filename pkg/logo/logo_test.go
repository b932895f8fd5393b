package logo_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/logo"
)

// encoded is a PNG of that size in which every pixel is as paint says.
func encoded(t testing.TB, width, height int, paint func(x, y int) color.Color) []byte {
	t.Helper()
	picture := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			picture.Set(x, y, paint(x, y))
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func blue(int, int) color.Color { return color.NRGBA{11, 85, 159, 255} }

func noise(int, int) color.Color {
	n := rand.Uint32()
	return color.NRGBA{uint8(n), uint8(n >> 8), uint8(n >> 16), 255}
}

// claims is a PNG that is tiny and claims to be of that size.
func claims(width, height uint32) []byte {
	header := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	header = append(binary.BigEndian.AppendUint32(header, height), 8, 6, 0, 0, 0)
	file := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	return binary.BigEndian.AppendUint32(append(file, header...), crc32.ChecksumIEEE(header))
}

func TestPNGIsEncodedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		file          []byte
		width, height int
	}{
		"small":   {encoded(t, 48, 32, blue), 48, 32},
		"wide":    {encoded(t, 1000, 100, blue), 256, 25},
		"narrow":  {encoded(t, 2, 2000, blue), 1, 256},
		"noisy":   {encoded(t, 300, 300, noise), 96, 96},
		"trailer": {append(encoded(t, 48, 32, blue), "<script>canary</script>"...), 48, 32},
	} {
		got, err := logo.Read(test.file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		picture, err := png.Decode(bytes.NewReader(got.Data))
		if err != nil || got.Type != logo.PNG || len(got.Data) > 24<<10 {
			t.Errorf("%s: %s with %d bytes, %v", name, got.Type, len(got.Data), err)
			continue
		}
		if size := picture.Bounds(); size.Dx() != test.width || size.Dy() != test.height {
			t.Errorf("%s: the size is %v", name, size)
		}
		if bytes.Contains(got.Data, []byte("canary")) {
			t.Errorf("%s: something of the file is kept", name)
		}
	}
}

// A pixel that nobody sees gives no color to its neighbors, as black edges round a logo.
func TestTransparentPixelsHaveNoColor(t *testing.T) {
	got, err := logo.Read(encoded(t, 512, 512, func(x, _ int) color.Color {
		if x%2 == 0 {
			return color.NRGBA{0, 0, 0, 0}
		}
		return color.NRGBA{200, 100, 50, 255}
	}))
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(got.Data))
	if err != nil {
		t.Fatal(err)
	}
	if c := color.NRGBAModel.Convert(picture.At(3, 3)).(color.NRGBA); c.R < 198 || c.A < 126 || c.A > 129 {
		t.Errorf("the pixel is %v", c)
	}
}

const drawing = `<?xml version="1.0" encoding="UTF-8"?>
<!-- Generator: a drawing program -->
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg version="1.1" id="Layer_1" class="logo" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
  xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape" viewBox="0 0 32 32" xml:space="preserve"
  style="enable-background:new 0 0 32 32;" inkscape:version="1.3">
  <title>Acme</title><metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></metadata>
  <inkscape:page x="1"><script/></inkscape:page>
  <defs><linearGradient id="a"><stop offset="0%" stop-color="#f00"/></linearGradient>
    <clipPath id="b"><rect width="32" height="32"/></clipPath></defs>
  <g clip-path="url(#b)" data-name="x" fill="red" style="fill:url(#a);stroke:rgb(1, 2, 3)"><path d="M0,0 L1.5e3-2z"/></g>
</svg>`

func TestSVGIsWrittenAgain(t *testing.T) {
	for name, file := range map[string]string{"plain": drawing, "with a byte order mark": "\ufeff" + drawing} {
		got, err := logo.Read([]byte(file))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		const want = `<svg xmlns="http://www.w3.org/2000/svg" id="Layer_1" viewBox="0 0 32 32">` +
			`<defs><linearGradient id="a"><stop offset="0%" stop-color="#f00"></stop></linearGradient>` +
			`<clipPath id="b"><rect width="32" height="32"></rect></clipPath></defs>` +
			`<g clip-path="url(#b)" fill="url(#a)" stroke="rgb(1, 2, 3)"><path d="M0,0 L1.5e3-2z"></path></g></svg>`
		if got.Type != logo.SVG || string(got.Data) != want {
			t.Errorf("%s: %s:\n%s\nwant\n%s", name, got.Type, got.Data, want)
		}
	}
}

func svg(inside string) string {
	return `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">` + inside +
		`</svg>`
}

// hostile are files that would do more than show a picture, or cost more than a picture should.
var hostile = map[string]string{
	"a script":               svg(`<script>alert(1)</script>`),
	"a script of HTML":       svg(`<h:script xmlns:h="http://www.w3.org/1999/xhtml">alert(1)</h:script>`),
	"an event handler":       svg(`<path onload="alert(1)" d="M0 0"/>`),
	"a handler of the root":  `<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>`,
	"HTML":                   svg(`<foreignObject><p>Hello</p></foreignObject>`),
	"a style sheet":          svg(`<style>@import url(https://example.com)</style>`),
	"a style with an URL":    svg(`<path style="background:url(https://example.com)"/>`),
	"a style with a filter":  svg(`<path style="filter: url(#f)"/>`),
	"another style":          svg(`<path style="fill:u\72l(https://example.com)"/>`),
	"an image":               svg(`<image href="https://example.com/x.png"/>`),
	"an external use":        svg(`<use xlink:href="https://example.com/x.svg#a"/>`),
	"a local use":            svg(`<g id="a"/><use href="#a"/>`),
	"a link":                 svg(`<a href="javascript:alert(1)"><path d="M0 0"/></a>`),
	"an external paint":      svg(`<path fill="url(https://example.com#a)"/>`),
	"an external paint, too": svg(`<path fill="red url(//example.com#a)"/>`),
	"a gradient elsewhere":   svg(`<linearGradient id="a" xlink:href="data:image/svg+xml,x"/>`),
	"an animation":           svg(`<path><animate attributeName="href" to="javascript:alert(1)"/></path>`),
	"a filter":               svg(`<filter id="f"><feImage href="x"/></filter>`),
	"text":                   svg(`<path d="M0 0">Sign in at example.com</path>`),
	"a text element":         svg(`<text>Sign in at example.com</text>`),
	"an entity":              `<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>` + svg(`<path d="&x;"/>`),
	"many entities":          `<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>` + svg(`&b;`),
	"an undeclared entity":   svg(`<path d="&x;"/>`),
	"an inline base":         `<svg xmlns="http://www.w3.org/2000/svg" xml:base="x" href="y"/>`,
	"a style instruction":    `<?xml-stylesheet href="https://example.com/x.css"?>` + svg(``),
	"two drawings":           svg(``) + svg(``),
	"a drawing in another":   svg(svg(``)),
	"no namespace":           `<svg><path d="M0 0"/></svg>`,
	"another namespace":      `<svg xmlns="http://www.w3.org/1999/xhtml"/>`,
	"HTML alone":             `<!DOCTYPE html><html><body onload="alert(1)"></body></html>`,
	"only a document type":   `<!DOCTYPE svg>`,
	"an unclosed element":    svg(`<path d="M0 0">`),
	"a broken tag":           `<svg xmlns="http://www.w3.org/2000/svg"`,
	"UTF-16":                 `<?xml version="1.0" encoding="UTF-16"?>` + svg(``),
	"deep nesting":           svg(strings.Repeat("<g>", 40) + strings.Repeat("</g>", 40)),
	"many elements":          svg(strings.Repeat(`<g/>`, 2000)),
	"nested clip paths":      svg(`<clipPath id="a"><path clip-path="url(#b)"/></clipPath>`),
	"a clipped clip path":    svg(`<clipPath id="a" clip-path="url(#b)"><path d="M0 0"/></clipPath>`),
	"a long path":            svg(`<path d="` + strings.Repeat("M0 0", 10_000) + `"/>`),
	"a quote":                svg(`<path d='M0 0"onload="alert(1)'/>`),
	"an escaped quote":       svg(`<path d="M0 0&#34; onload=&#34;alert(1)"/>`),
	"a JPEG":                 "\xff\xd8\xff\xe0\x00\x10JFIF",
	"a GIF with a script":    "GIF89a/*<svg/onload=alert(1)>*/",
	"nothing":                "",
	"words":                  "logo.png",
	"a PNG of one line":      "\x89PNG\r\n\x1a\n",
	"a PNG that is an SVG":   "\x89PNG\r\n\x1a\n<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>",
	"a huge PNG":             string(claims(50_000, 50_000)),
	"a wide PNG":             string(claims(1<<31-1, 1)),
	"an empty PNG":           string(claims(0, 0)),
	"a PNG without pixels":   string(claims(16, 16)),
	"a large file":           strings.Repeat("<", logo.MaxFile+1),
}

func TestHostileFilesAreRefused(t *testing.T) {
	for name, file := range hostile {
		got, err := logo.Read([]byte(file))
		if err == nil {
			t.Errorf("%s is accepted: %s", name, got.Data)
		} else if len(err.Error()) > 300 || strings.Contains(err.Error(), "alert") {
			t.Errorf("%s: the error repeats the file: %v", name, err)
		}
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, image.NewGray(image.Rect(0, 0, 9, 9)), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := logo.Read(out.Bytes()); err == nil || err.Error() != "the file is neither a PNG nor an SVG" {
		t.Errorf("a JPEG: %v", err)
	}
}

func TestURL(t *testing.T) {
	got := logo.Logo{Type: logo.SVG, Data: []byte("<svg/>")}.URL()
	if want := "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte("<svg/>")); got != want {
		t.Errorf("got %s", got)
	}
}

// FuzzRead holds what is accepted to what a browser may be given: the result is read again as
// it is, and it has nothing that could run or lead elsewhere.
func FuzzRead(f *testing.F) {
	f.Add([]byte(drawing))
	f.Add(encoded(f, 3, 2, blue))
	for _, file := range hostile {
		if len(file) < 10_000 {
			f.Add([]byte(file))
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := logo.Read(file)
		if err != nil {
			return
		}
		again, err := logo.Read(got.Data)
		if err != nil || !bytes.Equal(again.Data, got.Data) || again.Type != got.Type {
			t.Fatalf("read again, it is another logo: %v\n%q\n%q", err, got.Data, again.Data)
		}
		if len(got.Data) > 24<<10 {
			t.Fatalf("%d bytes", len(got.Data))
		}
		if got.Type == logo.PNG {
			return
		}
		decoder := xml.NewDecoder(bytes.NewReader(got.Data))
		for {
			part, err := decoder.Token()
			if err == io.EOF {
				return
			}
			switch part := part.(type) {
			case xml.StartElement:
				checkElement(t, part)
			case xml.EndElement:
			default:
				t.Fatalf("it has %T, %v: %s", part, err, got.Data)
			}
		}
	})
}

func checkElement(t *testing.T, e xml.StartElement) {
	for _, bad := range []string{"script", "style", "image", "use", "a", "foreignObject", "animate", "set", "filter"} {
		if strings.EqualFold(e.Name.Local, bad) {
			t.Fatalf("it has the element %s", bad)
		}
	}
	for _, a := range e.Attr {
		if a.Name.Local == "xmlns" && a.Value == "http://www.w3.org/2000/svg" {
			continue
		}
		if name := strings.ToLower(a.Name.Local); strings.HasPrefix(name, "on") || strings.Contains(name, "href") ||
			name == "style" || strings.ContainsAny(a.Value, ":;\\\"'<>&@") {
			t.Fatalf("it has the attribute %s with %q", a.Name.Local, a.Value)
		}
	}
}
