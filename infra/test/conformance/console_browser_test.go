//go:build conformance

package conformance

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/png"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A real Chromium uses the console of the demo: it connects, breaks everything that the
// panel offers, and sees each recovery without loading the page again.
func TestConsoleInABrowser(t *testing.T) {
	t.Parallel()
	port, emptyPort := freePort(t), freePort(t)
	demo := serving(t, "serve", "--demo", "--data", t.TempDir(), "--addr", "localhost:"+port, "--every", "5s")
	console, link := regexp.MustCompile(`Console:? +(http://\S+)`), regexp.MustCompile(`Consent link +(http://\S+)`)
	demo.says(t, link)
	empty := serving(t, "serve", "--data", t.TempDir(), "--addr", "localhost:"+emptyPort)
	empty.says(t, console)
	pictures := screens(t, "console")
	browse(t, "console.mjs", 20*time.Minute, map[string]any{"kind": "stand-in", "publicURL": demo.says(t, console),
		"consentLink": demo.says(t, link), "emptyURL": empty.says(t, console), "screens": pictures}, demo.out)
	film(t, pictures)
}

// film makes README's moving picture of the frames. CONTRIBUTING.md says when to copy both
// pictures to .github.
func film(t *testing.T, pictures string) {
	t.Helper()
	frames, err := filepath.Glob(filepath.Join(pictures, "frame-*.png"))
	if err != nil || len(frames) < 5 {
		t.Fatalf("%d frames: %v", len(frames), err)
	}
	slices.Sort(frames)
	var images []image.Image
	counts := map[color.RGBA]int{}
	for _, name := range frames {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		frame, err := png.Decode(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, frame)
		for y := range frame.Bounds().Dy() {
			for x := range frame.Bounds().Dx() {
				counts[color.RGBAModel.Convert(frame.At(x, y)).(color.RGBA)]++
			}
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	colors := slices.SortedFunc(maps.Keys(counts), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	palette := color.Palette{}
	for _, c := range colors[:min(len(colors), 256)] {
		palette = append(palette, c)
	}
	movie := &gif.GIF{}
	var last *image.Paletted
	for _, frame := range images {
		now := image.NewPaletted(frame.Bounds(), palette)
		draw.Draw(now, now.Bounds(), frame, image.Point{}, draw.Src)
		if changed := changes(last, now); !changed.Empty() {
			movie.Image = append(movie.Image, now.SubImage(changed).(*image.Paletted))
			movie.Delay = append(movie.Delay, 45) // hundredths of a second
		}
		last = now
	}
	movie.Delay[len(movie.Delay)-1] = 400
	var encoded bytes.Buffer
	if err := gif.EncodeAll(&encoded, movie); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pictures, "recovery.gif"), encoded.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	still, err := os.Stat(filepath.Join(pictures, "overview.png"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("README's pictures: %d kB, and %d frames in %d kB", still.Size()/1000, len(movie.Image), encoded.Len()/1000)
	if still.Size() > 150_000 || encoded.Len() > 500_000 {
		t.Error("README's pictures are too large")
	}
}

// changes is the part of now that last does not show.
func changes(last, now *image.Paletted) (part image.Rectangle) {
	if last == nil {
		return now.Bounds()
	}
	for y := range now.Rect.Dy() {
		for x := range now.Rect.Dx() {
			if last.ColorIndexAt(x, y) != now.ColorIndexAt(x, y) {
				part = part.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return part
}

// server is a running tokenturn command.
type server struct {
	out *lockedBuffer
	pid int
}

// serving runs the command until the test ends.
func serving(t *testing.T, arguments ...string) *server {
	t.Helper()
	s := &server{out: &lockedBuffer{}}
	cmd := exec.Command(built(t, buildCommand), arguments...)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		if err := <-exited; err != nil {
			t.Errorf("tokenturn %q: %v\n%s", arguments, err, s.out.tail(2000))
		}
	})
	return s
}

// says waits until the command has written a text of that form, and returns its first group.
func (s *server) says(t *testing.T, form *regexp.Regexp) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if found := form.FindStringSubmatch(s.out.String()); found != nil {
			return found[1]
		}
		if time.Now().After(deadline) {
			t.Fatalf("the command did not write %s, but:\n%s", form, s.out.tail(2000))
		}
	}
}
