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

// ReserveName is the file that takes an answer for which the database has no room. The
// first attempt makes it. A backup does not need it.
const ReserveName = "tokenturn.reserve"

const (
	// slotSize fits the largest answer, 256 KiB, sealed and in base64, and 40 KiB more.
	slotSize = 384 << 10
	// slotsKept is the number that one run needs at once; slots that a burst added are freed.
	slotsKept = 8
	// claimKept is how long after its end a claim stays, in case its answer is late.
	claimKept = time.Minute
)

// reserve is a file of slots. Each slot is written in full before a claim relies on it, so
// overwriting it with an answer needs no more disk space, whatever other programs do with the
// disk and other processes with the database. (A file system that copies on write, such as
// btrfs, still needs some.) The filling is random, because a file system may not store
// zeros, or may compress them.
//
// The table reserve says which attempt has which slot, and so which content is valid: an
// answer in a slot is a saved response while the slot's row names the claim that is stored
// with the answer. Rows and slots change only under the database's write lock.
type reserve struct{ path string }

// answer is the content of a slot: magic, length, checksum, and this as JSON.
type answer struct {
	Claim    string                 `json:"claim"`
	Response rotation.TokenResponse `json:"response"`
}

var slotMagic = []byte("tokenturn-answer-1\n")

const slotHeader = 19 + 4 + sha256.Size

// attemptClaim and stateClaim name the claims of an attempt and of the exchange of a code.
func attemptClaim(id string) string { return "attempt/" + id }
func stateClaim(hash string) string { return "state/" + hash }

// contents is the content of all slots at one moment.
type contents struct {
	slots []content
	err   error // of opening the file
}

// content is the content of one slot.
type content struct {
	answer answer // no claim: the slot has no answer
	err    error
}

// read reads every slot. A slot that cannot be read is an error only for its claim.
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
		all.slots = append(all.slots, content{a, err})
	}
	return all
}

// readSlot returns no answer for a slot without one, or with one that is incomplete.
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
		!slices.ContainsFunc(r.slots, func(c content) bool { return c.answer.Claim != "" || c.err != nil })
}

// of returns the answer that the claim has in its slot, if one was saved there.
func (r contents) of(c claim) (response rotation.TokenResponse, found bool, err error) {
	if r.err != nil || c.slot >= int64(len(r.slots)) {
		return response, false, r.err
	}
	at := r.slots[c.slot]
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
		return fmt.Errorf("the answer takes %d bytes, but a slot of %s has %d", len(text), ReserveName, slotSize-slotHeader)
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

// noRoom says that the disk has no room for an answer: lacks more bytes are needed.
func (r reserve) noRoom(lacks int64, err error) error {
	return fmt.Errorf("the disk of %s has no room to save an answer, so nothing was presented; "+
		"free at least %d bytes of it and try again: %w", filepath.Dir(r.path), lacks, err)
}

// explain says what a full disk means for an attempt.
func (r reserve) explain(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == sqlite3.SQLITE_FULL {
		return r.noRoom(slotSize, err)
	}
	return err
}

// grow makes the file reach to the end of the slot. If the disk has no room for
// that, the file keeps its size, so that it takes no space that another program needs.
func (r reserve) grow(slot int64) (err error) {
	info, err := os.Stat(r.path)
	made := errors.Is(err, os.ErrNotExist)
	if err != nil && !made {
		return err
	}
	size := int64(0)
	if !made {
		size = info.Size() / slotSize * slotSize // the rest is an incomplete slot of a process that ended early
	}
	end := (slot + 1) * slotSize
	if size >= end {
		return nil
	}
	filler := make([]byte, end-size)
	rand.Read(filler) // never fails: on an error it ends the program
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

// claims returns all claims, which are few, in order of their slots.
func claims(ctx context.Context, q querier) ([]claim, error) {
	rows, err := q.QueryContext(ctx, `SELECT slot, connection, claim, until FROM reserve ORDER BY slot`)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(rows *sql.Rows) (c claim, err error) {
		return c, rows.Scan(&c.slot, &c.connection, &c.name, &c.until)
	})
}

// claim gives name its own slot, which is completely on the disk. until is the latest time
// at which its answer is expected.
func (r reserve) claim(ctx context.Context, tx *sql.Tx, c token.Connection, name string, until time.Time) error {
	all, err := claims(ctx, tx)
	if err != nil {
		return err
	}
	dead := time.Now().Add(-claimKept).UnixMicro()
	if all, err = r.release(ctx, tx, all, func(c claim) bool { return c.until < dead }); err != nil {
		return err
	}
	var slot int64 // the first without a claim
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

// claimExchange gives the exchange of a code a slot, unless the connection has one for a
// code already, which came with a state.
func (r reserve) claimExchange(ctx context.Context, tx *sql.Tx, c token.Connection, id string, until time.Time) error {
	all, err := claims(ctx, tx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(old claim) bool {
		return old.connection == c.String() && strings.HasPrefix(old.name, stateClaim("")) &&
			old.until > time.Now().UnixMicro()
	}) {
		return nil
	}
	return r.claim(ctx, tx, c, stateClaim("exchange/"+id), until)
}

// release ends the claims that over selects, except those with an answer in the reserve,
// and returns the claims that are left.
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
// claims of its attempts that are over. It reports whether an answer was moved.
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

// isOver reports whether the claim belongs to an attempt that is not in attempts.
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
		saved, found, err := now.of(c)
		switch {
		case err != nil || !c.isFor(m): // two codes for one connection have a slot each
		case found && saved.Key == m.Key:
			return nil
		case !found:
			return r.put(c, m)
		}
	}
	return errors.New("no room is reserved for it")
}

// tidy overwrites answers that the database has, and frees the slots that a burst added.
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
	for n, at := range now.slots {
		if at.answer.Claim == "" || at.answer.Claim == names[int64(n)] {
			continue
		}
		filler := make([]byte, slotSize)
		rand.Read(filler) // never fails: on an error it ends the program
		if err := r.write(int64(n)*slotSize, filler); err != nil {
			return err
		}
	}
	if int64(len(now.slots)) > keep {
		return os.Truncate(r.path, keep*slotSize)
	}
	return nil
}
