package fsck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// secret checks the version that readers see, and the other versions of the secret.
func (x *examination) secret(ctx context.Context) error {
	r := x.rec
	shown, err := x.Secrets.Current(ctx, r.Connection)
	published := r.Status == rotation.Active && r.Published != "" // readers of the others get a version with a new consent
	switch {
	case errors.Is(err, rotation.ErrSecretDeleted):
		if r.Status == rotation.Active {
			x.found(SecretDeleted, "the secret is scheduled for deletion, but the connection is active")
		}
		x.missing(rotation.Version{})
		return nil
	case errors.Is(err, rotation.ErrNoSecret):
		if published {
			x.found(SecretMissing, "there is no secret, but version %s was published", r.Published)
		}
		x.missing(rotation.Version{})
		return nil
	case errors.Is(err, rotation.ErrNoVersion):
		if published {
			x.found(LabelMissing, "no version of the secret is AWSCURRENT")
		}
	case err != nil:
		return fmt.Errorf("reading the secret: %w", err)
	}
	x.missing(shown)
	versions, err := x.Secrets.Versions(ctx, r.Connection)
	if err != nil {
		return fmt.Errorf("listing the versions of the secret: %w", err)
	}
	has := func(id string) bool {
		return slices.ContainsFunc(versions, func(v rotation.VersionInfo) bool { return v.ID == id })
	}
	if published && !has(r.Published) {
		x.found(VersionMissing, "the published version %s does not exist", r.Published)
	}
	for _, v := range versions {
		if len(v.Labels) == 0 && !isEscrow(v.ID) && v.ID != r.Published {
			continue // no longer in use
		}
		version := shown
		if v.ID != shown.ID {
			if version, err = x.Secrets.Version(ctx, r.Connection, v.ID); errors.Is(err, rotation.ErrNoVersion) {
				continue // deleted meanwhile
			} else if err != nil {
				x.found(VersionUnreadable, "version %s of the secret cannot be read: %v", v.ID, err)
				continue
			}
		}
		x.version(version)
	}
	if shown.ID != "" && !x.has(VersionDiffers) && !x.has(OpenRefreshToken) {
		return x.document(ctx, shown)
	}
	return nil
}

// missing checks that the current pair exists in the ledger or in the secret.
func (x *examination) missing(shown rotation.Version) {
	r := x.rec
	if !x.live() || r.Current == nil || r.ServiceAccount && r.Current.VersionID == "" {
		return
	}
	if _, there := x.response(r.Current.Response); there {
		return
	}
	if shown.ID != "" && shown.ID == r.Current.VersionID {
		x.found(CurrentOnlyShown, "the response %s of the current pair is not in the ledger, only in the secret",
			name(r.Current.Response))
		return
	}
	x.found(CurrentLost, "the response %s of the current pair is not in the ledger, and the secret does not show it",
		name(r.Current.Response))
}

// ownID matches the ids of versions that tokenturn writes.
var ownID = regexp.MustCompile(`^(escrow-)?[0-9a-f]{48}$`)

func isEscrow(id string) bool { return strings.HasPrefix(id, "escrow-") }

// version checks one version on its own.
func (x *examination) version(v rotation.Version) {
	if ownID.MatchString(v.ID) && strings.TrimPrefix(v.ID, "escrow-") != token.VersionID(v.Value) {
		x.found(VersionDiffers, "the bytes of version %s do not match its id", v.ID)
		return
	}
	if x.showsRefreshToken(v.Value) {
		x.found(OpenRefreshToken, "version %s contains a refresh token that readers can read", v.ID)
		return
	}
	if m, ok := rotation.EscrowedResponse(v); ok {
		x.escrow(v.ID, m)
	}
}

// showsRefreshToken searches for a refresh token in plain text.
func (x *examination) showsRefreshToken(value token.Secret) bool {
	text := value.Reveal()
	if strings.Contains(text, `"refresh_token"`) {
		return true
	}
	for _, o := range x.opened {
		refresh := o.Pair.RefreshToken.Reveal()
		escaped, err := json.Marshal(refresh)
		if refresh != "" && (strings.Contains(text, refresh) || err == nil &&
			strings.Contains(text, strings.Trim(string(escaped), `"`))) {
			return true
		}
	}
	return false
}

// escrow checks that an answer that was saved in the secret store was copied to the ledger.
// A response that is not above the row is no longer needed.
func (x *examination) escrow(id string, m rotation.TokenResponse) {
	_, there := x.response(m.Key)
	if m.Connection != x.rec.Connection || m.Stack != x.rec.Stack || there || m.Consent != "" || !x.past(m.SavedAt) ||
		!above(m.Key.Epoch, m.Key.Generation, x.rec.Epoch, x.rec.Generation) || x.rec.Attempt != nil {
		return
	}
	x.found(EscrowLeft, "version %s keeps the response %s, which is above the row but not in the ledger", id, name(m.Key))
}

func above(epoch, generation, thanEpoch, thanGeneration int64) bool {
	return epoch > thanEpoch || epoch == thanEpoch && generation > thanGeneration
}

// document checks the value that readers see.
func (x *examination) document(ctx context.Context, v rotation.Version) error {
	r := x.rec
	doc, err := token.ParseDocument(v.Value)
	expected := r.Current != nil && (v.ID == r.Published || v.ID == r.Current.VersionID)
	if r.Status != rotation.Active || r.Current == nil || r.Published == "" && !expected {
		// The version is from an earlier epoch. A new consent replaces it.
		if err == nil && doc.Connection == r.Connection && doc.Stack == r.Stack && doc.Epoch > r.Epoch {
			x.found(RowBelowSecret, "AWSCURRENT shows %d.%d, but the row is at %d.%d", doc.Epoch, doc.Generation, r.Epoch,
				r.Generation)
		}
		return nil
	}
	switch {
	case err != nil:
		x.found(ValueNotDocument, "AWSCURRENT is on version %s, which is not a document of tokenturn", v.ID)
	case doc.Connection != r.Connection:
		x.found(DocumentOfOtherConnection, "readers see the document of %s", doc.Connection)
	case doc.Stack != r.Stack:
		x.found(DocumentOfOtherStack, "readers see a document of the installation %q", doc.Stack)
	case doc.Environment != r.Connection.Environment:
		x.found(DocumentOfOtherEnvironment, "readers see a document of the environment %q", doc.Environment)
	case !expected && above(doc.Epoch, doc.Generation, r.Epoch, r.Generation):
		x.found(LabelAbove, "AWSCURRENT shows %d.%d, but the row is at %d.%d", doc.Epoch, doc.Generation, r.Epoch,
			r.Generation)
	case !expected && above(r.Epoch, r.Generation, doc.Epoch, doc.Generation):
		x.found(LabelBelow, "AWSCURRENT shows %d.%d, but the row is at %d.%d", doc.Epoch, doc.Generation, r.Epoch,
			r.Generation)
	case !expected:
		x.found(LabelElsewhere, "AWSCURRENT is on version %s, but the row published %s", v.ID, r.Published)
	default:
		return x.content(ctx, doc)
	}
	return nil
}

// content compares a document with its response; the document is a function of the response.
func (x *examination) content(ctx context.Context, doc token.Document) error {
	m := rotation.ResponseOf(doc)
	if saved, there := x.response(m.Key); there {
		if _, opened := x.opened[m.Key]; opened && string(saved.Sealed) != string(m.Sealed) {
			x.found(DocumentDiffers, "the sealed answer in the secret is not the sealed answer of the response %s", name(m.Key))
			return nil
		}
		m.Before = saved.Before
	}
	o, ok, err := x.opening(ctx, m)
	if err != nil || !ok {
		if err == nil && x.opener != nil && x.closed == "" {
			x.found(DocumentDiffers, "the sealed answer in the secret cannot be opened")
		}
		return err
	}
	want := o.Document
	switch {
	case o.Pair.Lifetime > 0 && (!doc.CreatedAt.Equal(want.CreatedAt) || !doc.ExpiresAt.Equal(want.ExpiresAt)):
		x.found(DocumentTimesDiffer, "readers see created at %s and expires at %s, but by its answer it is %s and %s",
			stamp(doc.CreatedAt), stamp(doc.ExpiresAt), stamp(want.CreatedAt), stamp(want.ExpiresAt))
	case doc.AccessToken != want.AccessToken, doc.TokenType != want.TokenType:
		x.found(DocumentDiffers, "the access token in the secret is not the one in its sealed answer")
	}
	return nil
}
