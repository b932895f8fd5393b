package logo

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
)

// maxSide bounds the sides of a given PNG in pixels, before anything is decoded: a file of a
// few kilobytes can claim to be an image of gigabytes.
const maxSide = 2048

// sides are the sides of the square that a stored PNG fits in. The first one with a file
// that is small enough is used.
var sides = []int{256, 192, 128, 96, 64}

func readPNG(file []byte) ([]byte, error) {
	size, err := png.DecodeConfig(bytes.NewReader(file))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the PNG cannot be read: %w", err)
	case size.Width > maxSide || size.Height > maxSide:
		return nil, fmt.Errorf("the PNG is %d x %d pixels; the most is %d x %[3]d", size.Width, size.Height, maxSide)
	}
	given, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("the PNG cannot be read: %w", err)
	}
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	for _, side := range sides {
		var out bytes.Buffer
		if err := encoder.Encode(&out, fit(given, side)); err != nil {
			return nil, fmt.Errorf("encoding the PNG: %w", err)
		}
		if out.Len() <= maxStored {
			return out.Bytes(), nil
		}
	}
	return nil, errors.New("the PNG stays too large when it is made smaller") // not with 64 x 64 pixels
}

// fit returns the image without metadata, made smaller if it does not fit in a square of side
// pixels. Each pixel is the average of those that it replaces.
func fit(from image.Image, side int) *image.NRGBA {
	bounds := from.Bounds()
	width, height := bounds.Dx(), bounds.Dy()
	if longest := max(width, height); longest > side {
		width, height = max(1, width*side/longest), max(1, height*side/longest)
	}
	to := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			to.Set(x, y, average(from, image.Rect(
				bounds.Min.X+x*bounds.Dx()/width, bounds.Min.Y+y*bounds.Dy()/height,
				bounds.Min.X+(x+1)*bounds.Dx()/width, bounds.Min.Y+(y+1)*bounds.Dy()/height)))
		}
	}
	return to
}

// average is of colors multiplied with their opacity, so that a transparent pixel has no color
// to give.
func average(from image.Image, area image.Rectangle) color.Color {
	var r, g, b, a uint64
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			pr, pg, pb, pa := from.At(x, y).RGBA()
			r, g, b, a = r+uint64(pr), g+uint64(pg), b+uint64(pb), a+uint64(pa)
		}
	}
	n := uint64(area.Dx() * area.Dy())
	return color.RGBA64{uint16(r / n), uint16(g / n), uint16(b / n), uint16(a / n)}
}
