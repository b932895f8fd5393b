package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenturn/tokenturn/pkg/fsck"
)

// undamaged returns the damage that package fsck finds in the stores, except what is expected.
func (b *harness) undamaged(ctx context.Context, expected ...fsck.Kind) error {
	report, err := fsck.Check(ctx, fsck.Config{Ledger: b.Ledger, Secrets: b.SecretStore, Sealer: b.Sealer,
		Issuer: b.Issuer, Settings: b.settings})
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range report.Findings {
		if slices.Contains(expected, f.Kind) {
			continue
		}
		errs = append(errs, fmt.Errorf("fsck finds %s in %s: %s", f.Kind, f.Connection, f.Detail))
	}
	if len(report.NotMade) > 0 {
		errs = append(errs, fmt.Errorf("fsck did not check all: %+v", report.NotMade))
	}
	return errors.Join(errs...)
}

// What fsck finds after the scenarios in which a clock is wrong, a response is gone, or a version unreadable.
var (
	ofWrongClock = []fsck.Kind{fsck.SavedAhead, fsck.AttemptFarAhead, fsck.HistoryAhead, fsck.HistoryOutOfOrder,
		fsck.PutsAhead, fsck.PutsUnsorted}
	ofLoss      = []fsck.Kind{fsck.CurrentOnlyShown}
	ofObscurity = []fsck.Kind{fsck.VersionUnreadable}
)
