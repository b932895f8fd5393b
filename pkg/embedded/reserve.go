package embedded

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// ReserveName is the file that takes an answer for which the database has no room. It is
// made by the first attempt. A backup does without it.
const ReserveName = "tokenturn.reserve"

const (
	// slotSize fits the largest answer, 256 KiB, sealed and in base64, and 40 KiB more.
	slotSize = 384 << 10
	// slotsKept are as many as one run needs at once; what a burst needed above them is freed.
	slotsKept = 8
	// claimKept is how long after its time an answer may still come that has to be saved.
	claimKept = time.Minute
)

// reserve is a file of slots. Each slot was written in full before somebody relied on it, so
// writing an answer over it needs no more space on the disk, whatever other programs do with the
// disk and other processes with the database. (A file system that copies on write, such as
// btrfs, needs some all the same.) The bytes it is filled with are random, because a file
// system may leave out zeros, or compress them.
//
// The table reserve says which attempt has which slot, and so what a slot's content counts:
// an answer in a slot is a saved response as long as the slot's row names the claim that is
// beside the answer. Rows and slots change only under the database's write lock.
type reserve struct{ path string }

// answer is the content of a slot: magic, length, checksum, and this as JSON.
type answer struct {
	Claim    string                 `json:"claim"`
	Response rotation.TokenResponse `json:"response"`
}

var slotMagic = []byte("tokenturn-answer-1\n")

const slotHeader = 19 + 4 + sha256.Size

// attemptClaim and stateClaim name who may need a slot: an attempt, or the exchange of a code.
func attemptClaim(id string) string { return "attempt/" + id }
func stateClaim(hash string) string { return "state/" + hash }

// contents is what the slots held at one moment.
type contents struct {
	held []content
	err  error // of reading the file at all
}

// content is that of one slot.
type content struct {
	answer answer // without a claim: none
	err    error
}

// read looks at every slot. What could not be read matters only to who needs it.
func (r reserve) read() contents {
	f, err := os.Open(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return contents{}
	}
	if err != nil {
		return contents{err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return contents{err: err}
	}
	var all contents
	for n := range info.Size() / slotSize {
		a, err := readSlot(io.NewSectionReader(f, n*slotSize, slotSize))
		all.held = append(all.held, content{a, err})
	}
	return all
}

// readSlot returns no answer for a slot that holds none or one that was written in part.
func readSlot(slot io.Reader) (a answer, err error) {
	header := make([]byte, slotHeader)
	if _, err := io.ReadFull(slot, header); err != nil || !bytes.HasPrefix(header, slotMagic) {
		return a, err
	}
	length := binary.BigEndian.Uint32(header[len(slotMagic):])
	if length > slotSize-slotHeader {
		return a, nil
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(slot, text); err != nil {
		return a, err
	}
	if sum := sha256.Sum256(text); !bytes.Equal(sum[:], header[len(slotMagic)+4:]) {
		return a, nil
	}
	return a, json.Unmarshal(text, &a)
}

// none reports that no slot holds an answer.
func (r contents) none() bool {
	return r.err == nil &&
		!slices.ContainsFunc(r.held, func(c content) bool { return c.answer.Claim != "" || c.err != nil })
}

// of returns the answer that the claim has in its slot, if one was saved there.
func (r contents) of(c claim) (response rotation.TokenResponse, found bool, err error) {
	if r.err != nil || c.slot >= int64(len(r.held)) {
		return response, false, r.err
	}
	at := r.held[c.slot]
	if at.err != nil {
		return response, false, fmt.Errorf("reading slot %d of %s: %w", c.slot, ReserveName, at.err)
	}
	return at.answer.Response, at.answer.Claim == c.name, nil
}

// put saves an answer in a slot. A nil return means that it is durable.
func (r reserve) put(c claim, m rotation.TokenResponse) error {
	text, err := json.Marshal(answer{c.name, m})
	if err != nil {
		return err
	}
	if len(text) > slotSize-slotHeader {
		return fmt.Errorf("the answer takes %d bytes and a slot of %s has %d", len(text), ReserveName, slotSize-slotHeader)
	}
	sum := sha256.Sum256(text)
	content := binary.BigEndian.AppendUint32(bytes.Clone(slotMagic), uint32(len(text)))
	return r.write(c.slot*slotSize, append(append(content, sum[:]...), text...))
}

// write puts content into the file at an offset and onto the disk.
func (r reserve) write(offset int64, content []byte) error {
	f, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, offset)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// noRoom says that the disk has no room for an answer, of which lacks bytes are missing.
func (r reserve) noRoom(lacks int64, err error) error {
	return fmt.Errorf("the disk of %s has no room to save an answer, so nothing was presented; "+
		"free at least %d bytes of it and try again: %w", filepath.Dir(r.path), lacks, err)
}

// explain says for whom it matters that the database found the disk full.
func (r reserve) explain(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == sqlite3.SQLITE_FULL {
		return r.noRoom(slotSize, err)
	}
	return err
}

// grow makes the file reach to the end of the slot. If the disk has no room for
// that, the file stays as it was, because what it would take up somebody else may need.
func (r reserve) grow(slot int64) (err error) {
	info, err := os.Stat(r.path)
	made := errors.Is(err, os.ErrNotExist)
	if err != nil && !made {
		return err
	}
	size := int64(0)
	if !made {
		size = info.Size() / slotSize * slotSize // the rest was written by somebody who did not end it
	}
	end := (slot + 1) * slotSize
	if size >= end {
		return nil
	}
	filler := make([]byte, end-size)
	rand.Read(filler) // never fails: it ends the program first
	if err = r.write(size, filler); err == nil && made {
		err = flush(filepath.Dir(r.path))
	}
	if err == nil {
		return nil
	}
	lacks := int64(len(filler))
	if info, err := os.Stat(r.path); err == nil {
		lacks -= max(0, info.Size()-size)
	}
	if made {
		err = errors.Join(err, os.Remove(r.path))
	} else {
		err = errors.Join(err, os.Truncate(r.path, size))
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return r.noRoom(lacks, err)
	}
	return fmt.Errorf("making room for an answer in %s: %w; nothing was presented; check the disk and the system's log",
		r.path, err)
}

// claim is a row of the table: the right to save an answer in a slot.
type claim struct {
	slot       int64
	connection string
	name       string
	until      int64
}

// claims lists all of them, which are few, by their slots.
func claims(ctx context.Context, q querier) ([]claim, error) {
	rows, err := q.QueryContext(ctx, `SELECT slot, connection, claim, until FROM reserve ORDER BY slot`)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(rows *sql.Rows) (c claim, err error) {
		return c, rows.Scan(&c.slot, &c.connection, &c.name, &c.until)
	})
}

// claim gives name a slot of its own, all of which is on the disk. until is when its
// answer is to be expected at the latest.
func (r reserve) claim(ctx context.Context, tx *sql.Tx, c token.Connection, name string, until time.Time) error {
	all, err := claims(ctx, tx)
	if err != nil {
		return err
	}
	dead := time.Now().Add(-claimKept).UnixMicro()
	if all, err = r.release(ctx, tx, all, func(c claim) bool { return c.until < dead }); err != nil {
		return err
	}
	var slot int64 // the first that nobody has
	for _, c := range all {
		if c.slot == slot {
			slot++
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO reserve (slot, connection, claim, until) VALUES (?, ?, ?, ?)`,
		slot, c.String(), name, until.UnixMicro()); err != nil {
		return err
	}
	return r.grow(slot)
}

// release ends the claims that over selects, but none that has its answer in the reserve,
// and returns those that are left.
func (r reserve) release(ctx context.Context, tx *sql.Tx, all []claim, over func(claim) bool) (
	left []claim, err error) {
	now := sync.OnceValue(r.read)
	for _, c := range all {
		if over(c) {
			if _, found, err := now().of(c); !found && err == nil {
				if err := endClaim(ctx, tx, c); err != nil {
					return nil, err
				}
				continue
			}
		}
		left = append(left, c)
	}
	return left, nil
}

func endClaim(ctx context.Context, tx *sql.Tx, c claim) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM reserve WHERE slot = ?`, c.slot)
	return err
}

// settle moves the connection's answers from the reserve into the database, and ends the
// claims of its attempts but those that are not over. It reports whether an answer was moved.
func (r reserve) settle(ctx context.Context, tx *sql.Tx, c token.Connection, attempts []rotation.Attempt) (
	moved bool, err error) {
	all, err := claims(ctx, tx)
	if err != nil {
		return false, err
	}
	now := sync.OnceValue(r.read)
	for _, claim := range all {
		if claim.connection != c.String() {
			continue
		}
		response, found, err := now().of(claim)
		if err == nil && found {
			moved = true
			err = appendResponse(ctx, tx, response)
		}
		if err == nil && (found || claim.isOver(attempts)) {
			err = endClaim(ctx, tx, claim)
		}
		if err != nil {
			return false, err
		}
	}
	return moved, nil
}

// isOver reports whether the claim is that of an attempt, and of none of these.
func (c claim) isOver(attempts []rotation.Attempt) bool {
	return strings.HasPrefix(c.name, attemptClaim("")) &&
		!slices.ContainsFunc(attempts, func(a rotation.Attempt) bool { return c.name == attemptClaim(a.ID) })
}

// isFor reports whether the claim was made for the response.
func (c claim) isFor(m rotation.TokenResponse) bool {
	return c.connection == m.Connection.String() && (c.name == attemptClaim(m.Key.Attempt) ||
		m.Source == rotation.FromCode && strings.HasPrefix(c.name, stateClaim("")))
}

// save puts a response into the slot that was claimed for it.
func (r reserve) save(ctx context.Context, tx *sql.Tx, m rotation.TokenResponse) error {
	all, err := claims(ctx, tx)
	if err != nil {
		return err
	}
	now := r.read()
	for _, c := range all {
		held, found, err := now.of(c)
		switch {
		case err != nil || !c.isFor(m): // of two codes for one connection each has a slot
		case found && held.Key == m.Key:
			return nil
		case !found:
			return r.put(c, m)
		}
	}
	return errors.New("no room is reserved for it")
}

// tidy overwrites answers that are in the database by now, and gives back to the disk what
// a burst took.
func (r reserve) tidy(ctx context.Context, tx *sql.Tx) error {
	all, err := claims(ctx, tx)
	if err != nil {
		return err
	}
	names, keep := map[int64]string{}, int64(slotsKept)
	for _, c := range all {
		names[c.slot], keep = c.name, max(keep, c.slot+1)
	}
	now := r.read()
	for n, at := range now.held {
		if at.answer.Claim == "" || at.answer.Claim == names[int64(n)] {
			continue
		}
		filler := make([]byte, slotSize)
		rand.Read(filler) // never fails: it ends the program first
		if err := r.write(int64(n)*slotSize, filler); err != nil {
			return err
		}
	}
	if int64(len(now.held)) > keep {
		return os.Truncate(r.path, keep*slotSize)
	}
	return nil
}
