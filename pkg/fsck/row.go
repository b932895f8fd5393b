package fsck

import (
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

const day = 24 * time.Hour

// foreign reports a row that cannot be checked further.
func (x *examination) foreign() bool {
	r := x.rec
	statuses := []rotation.Status{rotation.Pending, rotation.Active, rotation.NeedsConsent, rotation.Disconnected}
	switch {
	case r.Stack != x.Settings.Stack:
		x.found(RowOfOtherStack, "the row belongs to the installation %q, but this is %q", r.Stack, x.Settings.Stack)
		return true
	case !slices.Contains(statuses, r.Status):
		x.found(StatusUnknown, "the row has the status %q", r.Status)
		return true
	}
	return false
}

// live reports whether the connection has a pair that is used.
func (x *examination) live() bool {
	return x.rec.Status == rotation.Active || x.rec.Status == rotation.NeedsConsent
}

// row checks the fields of the row against each other.
func (x *examination) row() {
	x.status()
	x.current()
	x.attempts()
	x.failures()
	x.puts()
	r := x.rec
	if x.ahead(r.SearchAt, 2*x.Settings.Lease+x.Settings.Quiet+15*time.Minute) {
		x.found(SearchFarAhead, "the search for late answers is set to %s", stamp(r.SearchAt))
	}
	quarantined := slices.ContainsFunc(x.responses, func(m rotation.TokenResponse) bool {
		return m.State == rotation.Quarantined && rotation.RoleOf(r, m) == rotation.RoleSuccessor
	})
	if r.Quarantined != quarantined {
		x.found(QuarantineDiffers, "the row says quarantined = %v, but the saved responses say %v", r.Quarantined,
			quarantined)
	}
}

// status checks the fields that depend on the status.
func (x *examination) status() {
	r := x.rec
	pair := r.Current != nil || r.Ancestor != nil || r.Published != "" || r.Attempt != nil
	switch {
	case r.Status == rotation.Pending && pair:
		x.found(PendingWithPair, "nobody has consented yet, but the row has a pair, a published version or an attempt")
	case r.Status == rotation.Disconnected && pair:
		x.found(DisconnectedWithPair,
			"the connection is disconnected, but the row has a pair, a published version or an attempt")
	case x.live() && r.Current == nil:
		x.found(CurrentMissing, "the connection is %s, but the row has no pair", r.Status)
	case x.live() && r.Pin == nil:
		x.found(PinMissing, "the connection is %s, but the row has no pin", r.Status)
	case r.Pin != nil && r.Pin.Environment != r.Connection.Environment:
		x.found(PinOfOtherEnvironment, "the row is pinned to the environment %q", r.Pin.Environment)
	}
	switch {
	case r.Status == rotation.NeedsConsent && r.Refusal == nil:
		x.found(RefusalMissing, "a person must consent, but the row does not say when the token was refused")
	case r.Status != rotation.NeedsConsent && r.Refusal != nil:
		x.found(RefusalLeft, "the connection is %s, but the row says that its token was refused", r.Status)
	case r.NoticePending && r.Refusal != nil && x.past(r.Refusal.At):
		x.found(NoticeOverdue, "a person must consent since %s, but no notice was sent", stamp(r.Refusal.At))
	case r.Refusal != nil && x.ahead(r.Refusal.NextAt, day):
		x.found(WaitTooLong, "the refused token is tried again only at %s", stamp(r.Refusal.NextAt))
	}
}

// current compares the row's data of the current pair with its response.
func (x *examination) current() {
	r := x.rec
	if r.Current == nil || !x.live() {
		return
	}
	cur := *r.Current
	first := r.ServiceAccount && cur.VersionID == "" // has no token yet
	if cur.Fingerprint == "" && !first {
		x.found(FingerprintMissing, "the row has a pair without a fingerprint")
	}
	if cur.Response.Epoch != r.Epoch || cur.Response.Generation != r.Generation {
		x.found(PositionDiffers, "the row is at %d.%d, but its pair's response is %s", r.Epoch, r.Generation,
			name(cur.Response))
	}
	if a := r.Ancestor; a != nil && (a.Epoch != cur.Response.Epoch || a.Generation >= cur.Response.Generation) {
		x.found(AncestorNotBefore, "the ancestor %s does not come before the current response %s", name(*a),
			name(cur.Response))
	}
	m, ok := x.response(cur.Response)
	o, opened := x.opened[cur.Response]
	if !ok || !opened {
		return
	}
	switch shown := o.Document; {
	case o.Lineage != cur.Fingerprint && cur.Fingerprint != "":
		x.found(FingerprintDiffers, "the row's fingerprint of the current refresh token is not that of its response %s",
			name(m.Key))
	case !cur.SavedAt.Equal(m.SavedAt), cur.VersionID != "" && !cur.ExpiresAt.Equal(shown.ExpiresAt):
		x.found(RowTimesDiffer, "the row says saved at %s and expires at %s, but its response says %s and %s",
			stamp(cur.SavedAt), stamp(cur.ExpiresAt), stamp(m.SavedAt), stamp(shown.ExpiresAt))
	}
}

func (x *examination) response(key rotation.ResponseKey) (rotation.TokenResponse, bool) {
	i := slices.IndexFunc(x.responses, func(m rotation.TokenResponse) bool { return m.Key == key })
	if i < 0 {
		return rotation.TokenResponse{}, false
	}
	return x.responses[i], true
}

// attempts checks the row's attempts.
func (x *examination) attempts() {
	r := x.rec
	if a := r.Attempt; a != nil && x.live() && r.Current != nil {
		switch {
		case a.Fingerprint == "" && !r.ServiceAccount:
			x.found(AttemptWithoutFingerprint, "the attempt %s does not say which refresh token it is for", a.ID)
		case a.Fingerprint != r.Current.Fingerprint:
			x.found(AttemptOfOtherPair, "the attempt %s is not for the current refresh token", a.ID)
		case x.ahead(a.Until, x.Settings.Lease), x.ahead(a.BegunAt, 0):
			x.found(AttemptFarAhead, "the attempt %s, begun at %s, ends at %s", a.ID, stamp(a.BegunAt), stamp(a.Until))
		}
	}
	if a := r.ConsentAttempt; a != nil {
		waits := slices.ContainsFunc(x.responses, func(m rotation.TokenResponse) bool {
			return rotation.RoleOf(r, m) == rotation.RoleConsent && (m.Key.Attempt == a.Consent || m.Consent == a.Consent)
		})
		switch {
		case !waits:
			x.found(ConsentAttemptAlone, "the attempt %s refreshes the consent %s, but no such consent waits", a.ID, a.Consent)
		case x.ahead(a.Until, x.Settings.Lease), x.ahead(a.BegunAt, 0):
			x.found(AttemptFarAhead, "the attempt %s, begun at %s, ends at %s", a.ID, stamp(a.BegunAt), stamp(a.Until))
		}
	}
}

// failures checks the recorded failures.
func (x *examination) failures() {
	type about struct {
		step rotation.Step
		key  rotation.ResponseKey
	}
	seen := map[about]bool{}
	for _, f := range x.rec.Failures {
		if _, there := x.response(f.Response); f.Response != (rotation.ResponseKey{}) && !there {
			x.found(FailureOfNothing, "a failure of step %s names the response %s, which does not exist", f.Step,
				name(f.Response))
		}
		if f.Step == rotation.Revoke && f.Response == (rotation.ResponseKey{}) && x.rec.SearchAt.IsZero() {
			x.found(FailureOfNothing, "a failure of a search for late answers is recorded, but no search is planned")
		}
		if a := (about{f.Step, f.Response}); seen[a] {
			x.found(FailureTwice, "there are two failures of step %s for the response %s", f.Step, name(f.Response))
		} else {
			seen[a] = true
		}
		if x.ahead(f.NextAt, day) { // nothing waits longer: the put budget and a quarantine wait for a day
			x.found(WaitTooLong, "the step %s is tried again at %s", f.Step, stamp(f.NextAt))
		}
	}
}

// puts checks the list from which the put budget is counted.
func (x *examination) puts() {
	limit, puts := x.Settings.PutsPerDay, x.rec.Puts
	if limit == 0 || len(puts) == 0 {
		return
	}
	tolerance := int64(clockTolerance / time.Second)
	last := puts[0]
	for _, at := range puts[1:] {
		if at < last-tolerance { // several processes write, and each has its own clock
			x.found(PutsUnsorted, "the times of the last puts are not in order")
			break
		}
		last = max(last, at)
	}
	if newest := time.Unix(slices.Max(puts), 0); x.ahead(newest, 0) {
		x.found(PutsAhead, "a put is recorded for %s, which is in the future", stamp(newest))
	}
	// Escrow is put after the budget was checked, and a put is recorded before it is made.
	if len(puts) > limit+max(3, limit/5) {
		x.found(PutsTooMany, "%d puts are recorded, but a secret takes %d in 24 hours", len(puts), limit)
	}
}

// due checks, with the engine's own rule, that a run comes when there is something to do.
func (x *examination) due() {
	r := x.rec
	if x.has(CurrentMissing) || r.Status == rotation.NeedsConsent && r.Refusal == nil {
		return // the rule does not cover this
	}
	// A damaged response is no reason for a run.
	responses := slices.DeleteFunc(slices.Clone(x.responses),
		func(m rotation.TokenResponse) bool { return slices.Contains(x.damaged, m.Key) })
	rule := x.Settings.DueAt(r, responses, x.now)
	switch {
	case rule.IsZero():
	case r.DueAt.IsZero():
		x.found(DueMissing, "the row is never due, but there is something to do at %s", stamp(rule))
	case r.DueAt.After(rule.Add(x.slack())):
		x.found(DueLate, "the row is due at %s, but there is something to do at %s", stamp(r.DueAt), stamp(rule))
	}
	if !r.DueAt.IsZero() && x.past(r.DueAt) && !x.has(NoticeOverdue) {
		x.found(Overdue, "the row has been due since %s, but no run has handled it", stamp(r.DueAt))
	}
}

// others compares the row with those of other connections.
func (x *examination) others() {
	r := x.rec
	if !x.live() || r.Current == nil || r.Current.Fingerprint == "" {
		return
	}
	for _, o := range x.records {
		if o.Connection == r.Connection {
			continue
		}
		current := o.Current != nil && (o.Status == rotation.Active || o.Status == rotation.NeedsConsent)
		switch {
		case current && o.Current.Fingerprint == r.Current.Fingerprint:
			x.found(PairShared, "%s has the same refresh token", o.Connection)
		case slices.Contains(o.Imported, r.Current.Fingerprint):
			x.found(ImportedElsewhere, "the current refresh token was imported to %s", o.Connection)
		}
	}
}
