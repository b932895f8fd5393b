package logo

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

const svgSpace = "http://www.w3.org/2000/svg"

// Bounds of an SVG, for the browsers that draw it.
const (
	maxElements = 2000
	maxDepth    = 32
)

// drawn are the elements that a logo may have: shapes, groups, gradients and clip paths. None
// of them can run, load, link to or repeat anything.
var drawn = words(`svg g path rect circle ellipse line polyline polygon defs linearGradient radialGradient stop
	clipPath`)

// skipped are elements without a drawing, left out together with what they contain.
var skipped = words("title desc metadata")

// editors are the namespaces of notes that drawing programs leave in a file. They are left out.
var editors = words(`http://www.inkscape.org/namespaces/inkscape
	http://sodipodi.sourceforge.net/DTD/sodipodi-0.dtd http://www.bohemiancoding.com/sketch/ns
	http://ns.adobe.com/AdobeIllustrator/10.0/`)

// kept are the attributes of a drawing.
var kept = words(`id viewBox preserveAspectRatio width height x y x1 y1 x2 y2 cx cy r rx ry fx fy d points pathLength
	transform gradientUnits gradientTransform spreadMethod offset clipPathUnits fill fill-opacity fill-rule stroke
	stroke-width stroke-opacity stroke-linecap stroke-linejoin stroke-miterlimit stroke-dasharray stroke-dashoffset
	stop-color stop-opacity opacity clip-path clip-rule color display visibility vector-effect shape-rendering`)

// ignored are attributes that change nothing in a drawing without style sheets.
var ignored = words("version baseProfile class enable-background overflow")

// plain is the form of every value: numbers, names, colors and paths. It has no quote, no
// backslash, no colon and no semicolon, so it contains no address, escape or declaration.
var plain = regexp.MustCompile(`^[A-Za-z0-9 \t\r\n#%(),.+_-]*$`)

// local is the only reference there may be: to a gradient or a clip path of the same file.
var local = regexp.MustCompile(`^url\(#[A-Za-z_][A-Za-z0-9_.-]*\)$`)

func words(list string) map[string]bool {
	set := map[string]bool{}
	for _, word := range strings.Fields(list) {
		set[word] = true
	}
	return set
}

// svgReader writes what it reads and accepts.
type svgReader struct {
	decoder  *xml.Decoder
	out      bytes.Buffer
	open     []string // the elements around
	elements int
}

func readSVG(file []byte) ([]byte, error) {
	r := &svgReader{decoder: xml.NewDecoder(bytes.NewReader(file))}
	r.decoder.CharsetReader = func(charset string, _ io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("its encoding is %.20q instead of UTF-8", charset)
	}
	for {
		found, err := r.decoder.Token()
		switch {
		case errors.Is(err, io.EOF) && r.elements > 0:
			if r.out.Len() > maxStored {
				return nil, fmt.Errorf("the SVG has more than %d KiB; simplify it, or give a PNG", maxStored>>10)
			}
			return r.out.Bytes(), nil
		case err != nil:
			return nil, fmt.Errorf("the SVG cannot be read: %w", err)
		}
		if err := r.take(found); err != nil {
			return nil, fmt.Errorf("the SVG cannot be used: %w; remove it in a drawing program, or give a PNG", err)
		}
	}
}

// take writes one part of the file, or refuses it.
func (r *svgReader) take(found xml.Token) error {
	switch part := found.(type) {
	case xml.StartElement:
		return r.start(part)
	case xml.EndElement:
		r.open = r.open[:len(r.open)-1]
		r.out.WriteString("</" + part.Name.Local + ">")
	case xml.CharData:
		if len(bytes.TrimSpace(part)) > 0 {
			return errors.New("it has text")
		}
	case xml.Comment:
	case xml.ProcInst:
		if part.Target != "xml" {
			return fmt.Errorf("it has the instruction %.40q", part.Target)
		}
	case xml.Directive:
		if kind := bytes.ToUpper(part); !bytes.HasPrefix(kind, []byte("DOCTYPE")) || bytes.ContainsRune(part, '[') {
			return errors.New("it declares entities") // those of an outside document type are never read
		}
	}
	return nil
}

func (r *svgReader) start(e xml.StartElement) error {
	r.elements++
	name := e.Name.Local
	switch {
	case editors[e.Name.Space] || e.Name.Space == svgSpace && skipped[name] && len(r.open) > 0:
		return r.decoder.Skip()
	case e.Name.Space != svgSpace || !drawn[name]:
		return fmt.Errorf("it has the element %.40q", name)
	case (name == "svg") != (len(r.open) == 0):
		return errors.New("it has one drawing within or after another")
	case name == "svg" && r.elements > 1:
		return errors.New("it has two drawings")
	case r.elements > maxElements || len(r.open) >= maxDepth:
		return fmt.Errorf("it has more than %d elements, or more than %d within each other", maxElements, maxDepth)
	}
	r.out.WriteString("<" + name)
	if name == "svg" {
		r.out.WriteString(` xmlns="` + svgSpace + `"`)
	}
	attributes, err := declarations(e.Attr)
	if err != nil {
		return err
	}
	for _, a := range attributes {
		if err := r.attribute(name, a); err != nil {
			return err
		}
	}
	r.out.WriteString(">")
	r.open = append(r.open, name)
	return nil
}

// declarations returns the attributes, with those declarations of a style attribute that are
// attributes, too (SVG 2, "presentation attributes"). Others are editors' notes.
func declarations(given []xml.Attr) (all []xml.Attr, err error) {
	for _, a := range given {
		if a.Name.Space != "" || a.Name.Local != "style" {
			all = append(all, a)
			continue
		}
		for declaration := range strings.SplitSeq(a.Value, ";") {
			name, value, _ := strings.Cut(declaration, ":")
			if name = strings.TrimSpace(name); name != "" && kept[name] {
				all = append(all, xml.Attr{Name: xml.Name{Local: name}, Value: strings.TrimSpace(value)})
			} else if strings.Contains(strings.ToLower(value), "url") {
				return nil, fmt.Errorf("its style refers to something with %.40q", name)
			}
		}
	}
	// The last one of a name counts: a declaration is stronger than an attribute.
	for i := len(all) - 2; i >= 0; i-- {
		if slices.ContainsFunc(all[i+1:], func(b xml.Attr) bool { return b.Name == all[i].Name }) {
			all = slices.Delete(all, i, i+1)
		}
	}
	return all, nil
}

func (r *svgReader) attribute(element string, a xml.Attr) error {
	name := a.Name.Local
	switch {
	case a.Name.Space == "xmlns" || a.Name.Space == "" && name == "xmlns": // written by start
		return nil
	case editors[a.Name.Space] || a.Name.Space == "http://www.w3.org/XML/1998/namespace":
		return nil
	case a.Name.Space == "" && (ignored[name] || strings.HasPrefix(name, "data-")):
		return nil
	case a.Name.Space != "" || !kept[name]:
		return fmt.Errorf("it has the attribute %.40q", name)
	case !plain.MatchString(a.Value):
		return fmt.Errorf("the attribute %.40q has a value with unusual characters", name)
	case strings.Contains(strings.ToLower(a.Value), "url") && !local.MatchString(a.Value):
		return fmt.Errorf("the attribute %.40q refers to something outside the file", name)
	case name == "clip-path" && (element == "clipPath" || slices.Contains(r.open, "clipPath")):
		// Each step of a chain of clip paths can double the work of drawing it.
		return errors.New("it has a clip path within a clip path")
	}
	r.out.WriteString(" " + name + `="` + a.Value + `"`)
	return nil
}
