package rotationtest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The labels of AWS Secrets Manager.
const (
	current  = "AWSCURRENT"
	pending  = "AWSPENDING"
	previous = "AWSPREVIOUS"
)

// Limits of AWS Secrets Manager.
const (
	maxVersions = 100            // of a secret; the oldest without a label makes room
	keepsFor    = 24 * time.Hour // no version younger than this makes room
	maxValue    = 65536          // bytes
)

var _ rotation.SecretStore = (*SecretStore)(nil)

// SecretStore is an AWS Secrets Manager in memory. A label is on one version at a time, and
// setting it elsewhere moves it. AWSPREVIOUS follows AWSCURRENT. A repeated put is ignored.
// Versions without labels stay until there is no room. The zero value is an empty one.
type SecretStore struct {
	Gate    Gate
	Journal *Journal
	// DropPending removes AWSPENDING from a version when AWSCURRENT moves to it. AWS
	// documents this in one place, but in answers recorded from AWS the label stays.
	DropPending bool
	// Lag is the age of the state that reads by label see.
	Lag time.Duration
	// MaxVersions is how many versions a secret has room for; 0: 100, as in AWS.
	MaxVersions int

	mu      sync.Mutex
	secrets map[token.Connection]*secret
}

type secret struct {
	versions  []*version // oldest first
	labels    map[string]string
	moves     []move // of AWSCURRENT
	deletedAt time.Time
}

type version struct {
	rotation.Version
	createdAt time.Time
	obscure   bool // cannot be read any more
}

type move struct {
	at time.Time
	to string
}

func (s *secret) version(id string) *version {
	for _, v := range s.versions {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// currentAt is the id that AWSCURRENT was on at that time. If stale, the newest move does not
// count.
func (s *secret) currentAt(at time.Time, stale bool) string {
	moves := s.moves
	if stale && len(moves) > 0 {
		moves = moves[:len(moves)-1]
	}
	for _, m := range slices.Backward(moves) {
		if !m.at.After(at) {
			return m.to
		}
	}
	return ""
}

// find returns a secret that can be used.
func (v *SecretStore) find(c token.Connection) (*secret, error) {
	s := v.secrets[c]
	switch {
	case s == nil:
		return nil, fmt.Errorf("%s: %w", c, rotation.ErrNoSecret)
	case !s.deletedAt.IsZero():
		return nil, fmt.Errorf("%s: %w", c, rotation.ErrSecretDeleted)
	}
	return s, nil
}

// on runs effect on a secret that can be used, between the gates.
func on[T any](ctx context.Context, v *SecretStore, call string, c token.Connection,
	effect func(s *secret, stale bool) (T, error)) (T, error) {
	return Through(ctx, v.Gate, call, c, func(stale bool) (T, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		s, err := v.find(c)
		if err != nil {
			var none T
			return none, err
		}
		return effect(s, stale)
	})
}

func (v *SecretStore) Current(ctx context.Context, c token.Connection) (rotation.Version, error) {
	return on(ctx, v, "secrets.Current", c, func(s *secret, stale bool) (rotation.Version, error) {
		if found := s.version(s.currentAt(time.Now().Add(-v.Lag), stale)); found != nil {
			return found.Version, nil
		}
		return rotation.Version{}, fmt.Errorf("AWSCURRENT of %s: %w", c, rotation.ErrNoVersion)
	})
}

func (v *SecretStore) Version(ctx context.Context, c token.Connection, id string) (rotation.Version, error) {
	return on(ctx, v, "secrets.Version", c, func(s *secret, stale bool) (rotation.Version, error) {
		found := s.version(id)
		if found == nil || stale && found == s.versions[len(s.versions)-1] {
			return rotation.Version{}, fmt.Errorf("version %s of %s: %w", id, c, rotation.ErrNoVersion)
		}
		if found.obscure {
			return rotation.Version{}, fmt.Errorf("version %s of %s cannot be decrypted", id, c)
		}
		return found.Version, nil
	})
}

func (v *SecretStore) Versions(ctx context.Context, c token.Connection) ([]rotation.VersionInfo, error) {
	return on(ctx, v, "secrets.Versions", c, func(s *secret, stale bool) ([]rotation.VersionInfo, error) {
		versions := s.versions
		if stale && len(versions) > 0 {
			versions = versions[:len(versions)-1]
		}
		var infos []rotation.VersionInfo
		for _, found := range versions {
			info := rotation.VersionInfo{ID: found.ID, CreatedAt: found.createdAt}
			for _, label := range []string{current, pending, previous} {
				if s.labels[label] == found.ID {
					info.Labels = append(info.Labels, label)
				}
			}
			infos = append(infos, info)
		}
		return infos, nil
	})
}

func (v *SecretStore) Create(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	_, err := Through(ctx, v.Gate, "secrets.Create", c, func(bool) (struct{}, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		s := v.secrets[c]
		switch {
		case s == nil:
			if err := check(c, id, value); err != nil {
				return struct{}{}, err
			}
			s = v.empty(c)
			v.store(ctx, c, s, id, value)
			v.moveCurrent(ctx, c, s, id, false)
			return struct{}{}, nil
		case !s.deletedAt.IsZero():
			return struct{}{}, fmt.Errorf("creating %s: %w", c, rotation.ErrSecretDeleted)
		}
		if found := s.version(id); found != nil && found.Value == value {
			return struct{}{}, nil
		}
		return struct{}{}, fmt.Errorf("creating %s, which is there: %w", c, rotation.ErrVersionTaken)
	})
	return err
}

func (v *SecretStore) Put(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	_, err := on(ctx, v, "secrets.Put", c, func(s *secret, _ bool) (struct{}, error) {
		if found := s.version(id); found != nil {
			if found.Value == value {
				return struct{}{}, nil
			}
			return struct{}{}, fmt.Errorf("version %s of %s: %w", id, c, rotation.ErrVersionTaken)
		}
		if err := check(c, id, value); err != nil {
			return struct{}{}, err
		}
		if !s.makeRoom(cmp.Or(v.MaxVersions, maxVersions)) {
			v.Journal.Add(ctx, c, Full{id})
			return struct{}{}, fmt.Errorf("version %s of %s: %w", id, c, rotation.ErrVersionLimit)
		}
		first := len(s.versions) == 0
		v.store(ctx, c, s, id, value)
		v.setLabel(ctx, c, s, pending, id, false)
		if first {
			v.moveCurrent(ctx, c, s, id, false)
		}
		return struct{}{}, nil
	})
	return err
}

func (v *SecretStore) Promote(ctx context.Context, c token.Connection, id, replaces string) error {
	_, err := on(ctx, v, "secrets.Promote", c, func(s *secret, _ bool) (struct{}, error) {
		switch {
		case s.version(id) == nil:
			return struct{}{}, fmt.Errorf("version %s of %s: %w", id, c, rotation.ErrNoVersion)
		case s.labels[current] == id:
			return struct{}{}, nil
		case s.labels[current] != replaces:
			return struct{}{}, fmt.Errorf("promoting version %s of %s: %w", id, c, rotation.ErrNotCurrent)
		}
		v.moveCurrent(ctx, c, s, id, false)
		return struct{}{}, nil
	})
	return err
}

// check refuses what Secrets Manager refuses.
func check(c token.Connection, id string, value token.Secret) error {
	if len(id) < 32 || len(id) > 64 {
		return fmt.Errorf("the version id %q of %s does not have 32 to 64 characters", id, c)
	}
	if n := len(value.Reveal()); n == 0 || n > maxValue {
		return fmt.Errorf("the value for %s has %d bytes and not 1 to %d", c, n, maxValue)
	}
	return nil
}

func (v *SecretStore) empty(c token.Connection) *secret {
	if v.secrets == nil {
		v.secrets = map[token.Connection]*secret{}
	}
	s := &secret{labels: map[string]string{}}
	v.secrets[c] = s
	return s
}

func (v *SecretStore) store(ctx context.Context, c token.Connection, s *secret, id string, value token.Secret) {
	stored := rotation.Version{ID: id, Value: value}
	s.versions = append(s.versions, &version{Version: stored, createdAt: time.Now()})
	v.Journal.Add(ctx, c, Stored{stored})
}

// makeRoom drops the oldest version without a label if the secret is full.
func (s *secret) makeRoom(limit int) bool {
	if len(s.versions) < limit {
		return true
	}
	for i, old := range s.versions {
		if time.Since(old.createdAt) >= keepsFor && !s.labeled(old.ID) {
			s.versions = slices.Delete(s.versions, i, i+1)
			return true
		}
	}
	return false
}

func (s *secret) labeled(id string) bool {
	for _, on := range s.labels {
		if on == id {
			return true
		}
	}
	return false
}

// moveCurrent moves AWSCURRENT and AWSPREVIOUS.
func (v *SecretStore) moveCurrent(ctx context.Context, c token.Connection, s *secret, to string, byHand bool) {
	from := s.labels[current]
	if from == to {
		return
	}
	if from != "" {
		v.setLabel(ctx, c, s, previous, from, byHand)
	}
	if v.DropPending && s.labels[pending] == to {
		delete(s.labels, pending)
	}
	v.setLabel(ctx, c, s, current, to, byHand)
	s.moves = append(s.moves, move{time.Now(), to})
}

func (v *SecretStore) setLabel(ctx context.Context, c token.Connection, s *secret, label, to string, byHand bool) {
	if from := s.labels[label]; from != to {
		s.labels[label] = to
		v.Journal.Add(ctx, c, Moved{label, from, to, byHand})
	}
}
