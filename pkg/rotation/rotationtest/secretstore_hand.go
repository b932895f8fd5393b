package rotationtest

import (
	"context"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// What a person with permissions can do to a secret in the console. These calls pass no gate.

// Edit stores a value as a person would: as a new version that takes AWSCURRENT at once.
func (v *SecretStore) Edit(ctx context.Context, c token.Connection, value token.Secret) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, err := v.find(c)
	if err != nil {
		return err
	}
	id := token.VersionID(value)
	if s.version(id) == nil {
		v.store(ctx, c, s, id, value)
	}
	v.moveCurrent(ctx, c, s, id, true)
	return nil
}

// RollBack moves AWSCURRENT onto an existing version, whatever it replaces.
func (v *SecretStore) RollBack(ctx context.Context, c token.Connection, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, err := v.find(c)
	if err != nil {
		return err
	}
	if s.version(id) == nil {
		return fmt.Errorf("version %s of %s: %w", id, c, rotation.ErrNoVersion)
	}
	v.moveCurrent(ctx, c, s, id, true)
	return nil
}

// MakeEmpty creates a secret without any version.
func (v *SecretStore) MakeEmpty(c token.Connection) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.empty(c)
}

// Delete schedules the secret for deletion.
func (v *SecretStore) Delete(c token.Connection) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.secrets[c]; s != nil {
		s.deletedAt = time.Now()
	}
}

// Restore cancels the deletion. The versions are unchanged.
func (v *SecretStore) Restore(c token.Connection) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.secrets[c]; s != nil {
		s.deletedAt = time.Time{}
	}
}

// Purge removes the secret immediately and permanently.
func (v *SecretStore) Purge(c token.Connection) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.secrets, c)
	v.Journal.Add(context.Background(), c, Purged{})
}

// Obscure makes every present version without a label unreadable, as if the key that encrypts
// it had been disabled.
func (v *SecretStore) Obscure(c token.Connection) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.secrets[c]; s != nil {
		for _, found := range s.versions {
			found.obscure = found.obscure || !s.labeled(found.ID)
		}
	}
}

// Label returns the id of the version that has the label now; empty if none has.
func (v *SecretStore) Label(c token.Connection, label string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.secrets[c]; s != nil {
		return s.labels[label]
	}
	return ""
}

// shown is the version that has AWSCURRENT now.
func (v *SecretStore) shown(c token.Connection) (rotation.Version, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, err := v.find(c)
	if err != nil {
		return rotation.Version{}, err
	}
	if found := s.version(s.labels[current]); found != nil {
		return found.Version, nil
	}
	return rotation.Version{}, fmt.Errorf("AWSCURRENT of %s: %w", c, rotation.ErrNoVersion)
}
