package fsck

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Kind names a kind of damage.
type Kind string

// The kinds of damage, each with the rule or the invariant (I) of the protocol that it breaks.

// Of the row.
const (
	// RowOfOtherStack: connections and installations do not mix (I11). Such a row is not
	// checked further.
	RowOfOtherStack Kind = "row_of_other_stack"
	// StatusUnknown: a status is one of four (state of one connection).
	StatusUnknown Kind = "status_unknown"
	// PendingWithPair: before the first consent there is no pair (state; the first consent is (1, 0)).
	PendingWithPair Kind = "pending_with_pair"
	// DisconnectedWithPair: a disconnect clears current, published and attempt in its one
	// write; nothing saved lives on after it (I9).
	DisconnectedWithPair Kind = "disconnected_with_pair"
	// CurrentMissing: an active row, or one that needs a consent, has a current pair (I3).
	CurrentMissing Kind = "current_missing"
	// PinMissing: a connection keeps its identity; without a pin, any identity would be accepted (I11).
	PinMissing Kind = "pin_missing"
	// PinOfOtherEnvironment: connections do not mix (I11).
	PinOfOtherEnvironment Kind = "pin_of_other_environment"
	// RefusalMissing: needs_consent is soft; its retry times come from the refusal (I4).
	RefusalMissing Kind = "refusal_missing"
	// RefusalLeft: success, consent and disconnect end a refusal (I4).
	RefusalLeft Kind = "refusal_left"
	// NoticeOverdue: every loss raises its alarm (I17).
	NoticeOverdue Kind = "notice_overdue"
	// FingerprintMissing: lineage is by the current fingerprint; without one no response
	// can succeed (rule 3, I3).
	FingerprintMissing Kind = "fingerprint_missing"
	// FingerprintDiffers: the token that is presented is the one that the ledger names (I1).
	FingerprintDiffers Kind = "fingerprint_differs"
	// PositionDiffers: (epoch, generation) has one decided successor each (I5).
	PositionDiffers Kind = "position_differs"
	// RowTimesDiffer: due times count from the response (due time).
	RowTimesDiffer Kind = "row_times_differ"
	// AncestorNotBefore: an ancestor comes before current in the same epoch (orphan rule, I9).
	AncestorNotBefore Kind = "ancestor_not_before"
	// QuarantineDiffers: every write sets the quarantine according to the responses (quarantine, I17).
	QuarantineDiffers Kind = "quarantine_differs"
	// PairShared: a refresh token belongs to one connection; two would each present it (I1, I11).
	PairShared Kind = "pair_shared"
	// ImportedElsewhere: an imported token is not presented for another connection (I1, I11).
	ImportedElsewhere Kind = "imported_elsewhere"
)

// Of attempts, waits and due times.
const (
	// AttemptWithoutFingerprint: an attempt is the right to present one token (I1).
	AttemptWithoutFingerprint Kind = "attempt_without_fingerprint"
	// AttemptOfOtherPair: every decision clears the attempt (I1).
	AttemptOfOtherPair Kind = "attempt_of_other_pair"
	// AttemptFarAhead: an attempt lasts one lease from its beginning (Begin, I14).
	AttemptFarAhead Kind = "attempt_far_ahead"
	// ConsentAttemptAlone: a consent's attempt ends with the consent (consent, I12).
	ConsentAttemptAlone Kind = "consent_attempt_alone"
	// FailureOfNothing: a failure is kept per step and response, and is deleted with the response (failures).
	FailureOfNothing Kind = "failure_of_nothing"
	// FailureTwice: there is one failure for each step and response (failures).
	FailureTwice Kind = "failure_twice"
	// WaitTooLong: no wait is longer than a day (failures, I14, I19).
	WaitTooLong Kind = "wait_too_long"
	// SearchFarAhead: the search runs as soon as nothing more can arrive (search_at, I9).
	SearchFarAhead Kind = "search_far_ahead"
	// DueMissing: every write sets due_at if there is anything to do (due_at, I14).
	DueMissing Kind = "due_missing"
	// DueLate: due_at is the earliest next time of all rules (due_at, I14).
	DueLate Kind = "due_late"
	// Overdue: a run that finds nothing to do at a past due_at rewrites it, so no run came (due_at, I14).
	Overdue Kind = "overdue"
	// PutsUnsorted: the oldest put comes first; the budget's wait counts from it (put budget).
	PutsUnsorted Kind = "puts_unsorted"
	// PutsAhead: a put with a future time would block the budget for a long time (put budget).
	PutsAhead Kind = "puts_ahead"
	// PutsTooMany: the budget is checked before presenting, and puts older than a day are deleted (put budget, I15).
	PutsTooMany Kind = "puts_too_many"
)

// Of saved responses.
const (
	// CurrentLost: nothing saved is lost (I3).
	CurrentLost Kind = "current_lost"
	// CurrentOnlyShown: the ledger keeps the current response; the secret only shows it (rule 3, I3).
	CurrentOnlyShown Kind = "current_only_shown"
	// CurrentUnopenable: the pair to present can be opened (preflight, I3).
	CurrentUnopenable Kind = "current_unopenable"
	// ResponseUnopenable: a response that may become current can be opened (Decide, I3).
	ResponseUnopenable Kind = "response_unopenable"
	// SealedForOther: sealed bytes cannot be moved to another connection, epoch or generation (I11).
	SealedForOther Kind = "sealed_for_other"
	// ResponseOfOtherConnection: connections do not mix (I11).
	ResponseOfOtherConnection Kind = "response_of_other_connection"
	// ResponseOfOtherStack: installations do not mix (I11).
	ResponseOfOtherStack Kind = "response_of_other_stack"
	// ResponseStateUnknown: a state is saved, quarantined or rejected (state).
	ResponseStateUnknown Kind = "response_state_unknown"
	// ReasonMissing: each quarantine and rejection says why (I17, I18).
	ReasonMissing Kind = "reason_missing"
	// EpochAhead: a consent is of the epoch after the row's (I5).
	EpochAhead Kind = "epoch_ahead"
	// GenerationAhead: a response is of the generation after the row's (I5).
	GenerationAhead Kind = "generation_ahead"
	// SavedAhead: no response is saved in the future; its times would be wrong (I5, due time).
	SavedAhead Kind = "saved_ahead"
	// TwoSuccessors: a pair has one decided successor; the others are revoked (I5, I2).
	TwoSuccessors Kind = "two_successors"
	// Undecided: a saved response is decided by the next run (Decide, I3, I14).
	Undecided Kind = "undecided"
	// OrphanLives: a response that can no longer be decided is revoked (I9).
	OrphanLives Kind = "orphan_lives"
)

// Of secrets.
const (
	// SecretMissing: at rest the secret store equals the ledger (I6).
	SecretMissing Kind = "secret_missing"
	// SecretDeleted: readers of an active connection can read (I6).
	SecretDeleted Kind = "secret_deleted"
	// UnknownSecret: a secret that no row keeps fresh shows a dead token (I6, I9).
	UnknownSecret Kind = "unknown_secret"
	// LabelMissing: readers read AWSCURRENT (I6).
	LabelMissing Kind = "label_missing"
	// LabelAbove: the ledger is older than what it published (I6, secret store check).
	LabelAbove Kind = "label_above"
	// RowBelowSecret: a new row starts above what the secret still shows of an earlier life (I5).
	RowBelowSecret Kind = "row_below_secret"
	// LabelBelow: AWSCURRENT never goes back (I6).
	LabelBelow Kind = "label_below"
	// LabelElsewhere: AWSCURRENT is on the published version (I6).
	LabelElsewhere Kind = "label_elsewhere"
	// VersionMissing: the published version is there (preflight opens the pair from it; I6).
	VersionMissing Kind = "version_missing"
	// VersionUnreadable: each version that has a label or saves an answer can be read (Find, I3).
	VersionUnreadable Kind = "version_unreadable"
	// VersionDiffers: a version's id is the hash of its bytes (pure function of the response).
	VersionDiffers Kind = "version_differs"
	// ValueNotDocument: a reader sees whole versions (I10).
	ValueNotDocument Kind = "value_not_document"
	// DocumentOfOtherConnection: a reader sees versions of its own connection (I10, I11).
	DocumentOfOtherConnection Kind = "document_of_other_connection"
	// DocumentOfOtherStack: a reader sees versions of its own installation (I10, I11).
	DocumentOfOtherStack Kind = "document_of_other_stack"
	// DocumentOfOtherEnvironment: a reader sees versions of its own environment (I10, I11).
	DocumentOfOtherEnvironment Kind = "document_of_other_environment"
	// DocumentTimesDiffer: created_at and expires_at are a function of the response (what is published).
	DocumentTimesDiffer Kind = "document_times_differ"
	// DocumentDiffers: all other fields are a function of the response (what is published, I10).
	DocumentDiffers Kind = "document_differs"
	// OpenRefreshToken: a reader never sees an open refresh token (I10).
	OpenRefreshToken Kind = "open_refresh_token"
	// EscrowLeft: a response that the secret store acknowledged is copied to the ledger (I3).
	EscrowLeft Kind = "escrow_left"
)

// Of the history, and of the files of one machine.
const (
	// HistoryAhead: no event has a future time (I18).
	HistoryAhead Kind = "history_ahead"
	// HistoryOutOfOrder: (epoch, generation) strictly grows (I5).
	HistoryOutOfOrder Kind = "history_out_of_order"
	// DecidedTwice: each (epoch, generation) has one decided successor (I5).
	DecidedTwice Kind = "decided_twice"
	// DecisionWithoutHistory: each decision is one history row, written with it (I18).
	DecisionWithoutHistory Kind = "decision_without_history"
	// CurrentSpent: a spent token is not presented again (I2).
	CurrentSpent Kind = "current_spent"
	// KeyFileMode: only its owner can read the key file (I13).
	KeyFileMode Kind = "key_file_mode"
)

// What an operator can do about damage. ENV/NAME stands for the connection.
const (
	invite  = "invite the person again, which starts a new epoch: tokenturn connection invite ENV/NAME"
	rotate  = "publish the current pair again, which a rotation does first: tokenturn connection rotate ENV/NAME"
	clock   = "synchronize the clocks of all machines with NTP; if the time stays far in the future, " + invite
	writeIt = "start a run, which writes the row again: tokenturn connection rotate ENV/NAME"
	restore = "restore the table (on one machine the database with its key file) from a backup; " +
		"if there is none, " + invite
	rename = "restore the table (on one machine the database with its key file) from a backup; " +
		"if there is none, connect under another name"
	stack = "find out which installation it belongs to; " +
		"give each its own table and secret prefix (TOKENTURN_STACK, TOKENTURN_SECRET_PREFIX)"
	sweep  = "check that the schedule runs: tokenturn doctor; to start a run now: tokenturn connection rotate ENV/NAME"
	revoke = "start a run, which revokes it: tokenturn connection rotate ENV/NAME; " +
		"if that does not help, revoke the app's access in Procore"
	history = "find out who restored or wrote the ledger; the connection itself is not damaged"
	exposed = "find out who read it; end the pair: tokenturn connection disconnect ENV/NAME, " +
		"then tokenturn connection invite ENV/NAME"
)

var remedies = []struct {
	text  string
	kinds []Kind
}{
	{stack, []Kind{RowOfOtherStack, ResponseOfOtherStack, DocumentOfOtherStack}},
	{clock, []Kind{AttemptFarAhead, WaitTooLong, SearchFarAhead, PutsAhead, PutsUnsorted, SavedAhead, HistoryAhead}},
	{writeIt, []Kind{DueMissing, DueLate, QuarantineDiffers, FailureOfNothing, FailureTwice, RowTimesDiffer,
		AncestorNotBefore, RefusalLeft}},
	{sweep, []Kind{Overdue, Undecided, EscrowLeft}},
	{rotate, []Kind{SecretMissing, LabelAbove, LabelBelow, LabelElsewhere, VersionMissing,
		VersionDiffers, ValueNotDocument, DocumentOfOtherConnection, DocumentOfOtherEnvironment, DocumentTimesDiffer,
		DocumentDiffers, CurrentOnlyShown}},
	{rename, []Kind{CurrentMissing, PinOfOtherEnvironment, EpochAhead, LabelMissing}},
	{restore, []Kind{StatusUnknown, FingerprintMissing, FingerprintDiffers, PositionDiffers,
		CurrentLost, CurrentUnopenable, ResponseUnopenable, SealedForOther}},
	{history, []Kind{HistoryOutOfOrder, DecidedTwice, DecisionWithoutHistory}},
	{revoke, []Kind{OrphanLives}},
	{"check that the key that encrypts the secret is enabled and may be used; if the key is gone, " +
		"the version cannot be read any more",
		[]Kind{VersionUnreadable}},
	{exposed, []Kind{OpenRefreshToken}},
	{"wait for a day, after which old puts no longer count; if they stay, " + invite, []Kind{PutsTooMany}},
	{"check that notices arrive: tokenturn doctor; then " + invite, []Kind{NoticeOverdue}},
	{"restore the table (on one machine the database with its key file) from a backup; if there is none, " +
		"delete the secret permanently, then " + invite, []Kind{RowBelowSecret}},
	{"restore the secret: tokenturn connection undo ENV/NAME", []Kind{SecretDeleted}},
	{"if no reader uses it any more, delete the secret; otherwise connect it: tokenturn connection invite ENV/NAME",
		[]Kind{UnknownSecret}},
}

// remedy says what to do. Damage that no run corrects needs a new consent.
func remedy(kind Kind, c token.Connection) string {
	text := invite
	for _, r := range remedies {
		if slices.Contains(r.kinds, kind) {
			text = r.text
		}
	}
	return strings.ReplaceAll(text, "ENV/NAME", c.String())
}

// KeyFile checks the mode of the key file of an installation on one machine.
func KeyFile(path string, mode fs.FileMode) []Finding {
	if mode.Perm()&^0o600 == 0 {
		return nil
	}
	return []Finding{{Kind: KeyFileMode, Detail: fmt.Sprintf("the key file %s has the mode %04o", path, mode.Perm()),
		Remedy: fmt.Sprintf("if no other user can have read it, run: chmod 600 '%s'", path)}}
}
