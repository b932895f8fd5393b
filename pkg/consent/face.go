package consent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Face is what people see of an app. Both fields may be empty.
type Face struct {
	Name string
	Logo string // a data: URL of a PNG or an SVG that package logo has made
}

const (
	// faceLife is how long a face is kept, so that strangers who ask for logos cause few reads
	// of the store.
	faceLife  = time.Minute
	mostFaces = 32
	// maxLogo bounds a data: URL: 24 KiB in base64.
	maxLogo = 33 << 10
)

// faces remembers the faces that were read.
type faces struct {
	mu    sync.Mutex
	known map[string]knownFace
}

type knownFace struct {
	Face
	until time.Time
}

// face returns what people see of the app of an environment; nothing if it cannot be read,
// because a consent does not depend on it.
func (h *Handler) face(ctx context.Context, environment string) Face {
	if h.cfg.Faces == nil {
		return Face{}
	}
	h.faces.mu.Lock()
	known, found := h.faces.known[environment]
	h.faces.mu.Unlock()
	now := h.cfg.Now()
	if found && now.Before(known.until) {
		return known.Face
	}
	face, err := h.cfg.Faces(ctx, environment)
	if err != nil && !errors.Is(err, rotation.ErrNoApplication) {
		h.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "the name and the logo of an app cannot be read",
			slog.String("environment", environment), slog.String("error", err.Error()))
		face = Face{} // remembered too, so that a store in trouble is not asked for each page
	}
	h.faces.mu.Lock()
	defer h.faces.mu.Unlock()
	if h.faces.known == nil || len(h.faces.known) >= mostFaces {
		h.faces.known = map[string]knownFace{}
	}
	h.faces.known[environment] = knownFace{face, now.Add(faceLife)}
	return face
}

// addFace puts the app's name and the address of its logo into a view. The address changes
// with the logo, so that browsers may keep it.
func (h *Handler) addFace(ctx context.Context, shown *view, environment string) {
	face := h.face(ctx, environment)
	shown.App = face.Name
	if _, data := parseLogo(face.Logo); data != nil {
		sum := sha256.Sum256(data)
		shown.Logo = h.public.Path + "/logo/" + environment + "?v=" + hex.EncodeToString(sum[:4])
	}
}

// images is what a page with the view has to be allowed to load.
func (v view) images() []string {
	if v.Logo == "" {
		return nil
	}
	return []string{"img-src 'self'"}
}

// parseLogo returns the media type and the content of a data: URL; no content if it is not of
// a logo.
func parseLogo(address string) (media string, data []byte) {
	media, encoded, found := strings.Cut(strings.TrimPrefix(address, "data:"), ";base64,")
	if !found || len(address) > maxLogo {
		return "", nil
	}
	data, err := base64.StdEncoding.DecodeString(encoded)
	start := map[string]string{"image/png": "\x89PNG\r\n\x1a\n", "image/svg+xml": "<svg "}[media]
	if err != nil || start == "" || !bytes.HasPrefix(data, []byte(start)) {
		return "", nil
	}
	return media, data
}

// logo serves GET /logo/{environment}. The file is harmless, and the headers do not depend on
// it: a browser that opens it as a page runs and loads nothing.
func (h *Handler) logo(w http.ResponseWriter, r *http.Request, environment string) {
	var media string
	var data []byte
	if _, err := token.ParseEnvironment(environment); err == nil {
		media, data = parseLogo(h.face(r.Context(), environment).Logo)
	}
	if data == nil {
		h.show(w, http.StatusNotFound, notFound, view{})
		return
	}
	header := w.Header()
	header.Set("Cache-Control", "public, max-age=3600")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	header.Set("Content-Type", media)
	header.Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data)
}
