package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	processes = 6
	rounds    = 25
)

// countInRecord raises the generation of one record by rounds, each step by
// compare and swap, and prints how often it lost.
func countInRecord(ctx context.Context, dir string) error {
	s, err := embedded.Open(ctx, dir) // all processes make the store at once
	if err != nil {
		return err
	}
	defer s.Close()
	ledger, secrets := s.Ledger(), s.SecretStore()
	lost := 0
	for won := 0; won < rounds; {
		record, _, err := ledger.Load(ctx, acme)
		if err != nil {
			return err
		}
		record.Generation++
		_, err = ledger.Write(ctx, rotation.Change{Record: record,
			History: []rotation.Event{{At: time.Now(), Kind: "counted"}}})
		switch {
		case errors.Is(err, rotation.ErrConflict):
			lost++
			continue
		case err != nil:
			return err
		}
		won++
		if err := publish(ctx, secrets, record.Generation); err != nil {
			return err
		}
	}
	fmt.Println(lost)
	return nil
}

// publish puts a version of the generation and makes it current unless a higher one is.
func publish(ctx context.Context, secrets rotation.SecretStore, generation int64) error {
	id := fmt.Sprintf("%032d", generation)
	value := token.NewSecret("value " + id)
	if err := secrets.Create(ctx, acme, id, value); err == nil {
		return nil
	} else if !errors.Is(err, rotation.ErrVersionTaken) {
		return err
	}
	if err := secrets.Put(ctx, acme, id, value); err != nil {
		return err
	}
	for {
		current, err := secrets.Current(ctx, acme)
		if err != nil || current.ID >= id {
			return err
		}
		if err := secrets.Promote(ctx, acme, id, current.ID); !errors.Is(err, rotation.ErrNotCurrent) {
			return err
		}
	}
}

// Several processes that make one new store and write one row at once: no step
// is lost or done twice, and the secret store ends at the highest generation.
func TestProcessesShareAStore(t *testing.T) {
	dir := t.TempDir() + "/new"
	cmds := make([]*exec.Cmd, processes)
	outputs := make([]bytes.Buffer, processes)
	for i := range cmds {
		cmds[i] = child(t, "count", dir, false)
		cmds[i].Stdout, cmds[i].Stderr = &outputs[i], &outputs[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v: %s", i, err, &outputs[i])
		}
		t.Logf("process %d lost %s times", i, strings.TrimSpace(outputs[i].String()))
	}
	s := openStore(t, dir)
	record, _, err := s.Ledger().Load(t.Context(), acme)
	if err != nil {
		t.Fatal(err)
	}
	if record.Generation != processes*rounds {
		t.Errorf("generation %d after %d acknowledged steps", record.Generation, processes*rounds)
	}
	events, err := s.Ledger().History(t.Context(), acme, 2*processes*rounds)
	if err != nil || len(events) != processes*rounds {
		t.Errorf("%d events, %v; want %d", len(events), err, processes*rounds)
	}
	current, err := s.SecretStore().Current(t.Context(), acme)
	if want := fmt.Sprintf("%032d", processes*rounds); err != nil || current.ID != want {
		t.Errorf("current version %s, %v; want %s", current.ID, err, want)
	}
}

// saveResponsesForever prints the number of each response once it is acknowledged.
func saveResponsesForever(ctx context.Context, dir string) error {
	s, err := embedded.Open(ctx, dir)
	if err != nil {
		return err
	}
	_, responses, err := s.Ledger().Load(ctx, acme)
	if err != nil {
		return err
	}
	for n := len(responses); ; n++ {
		if err := s.Ledger().SaveResponse(ctx, numbered(n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func numbered(n int) rotation.TokenResponse {
	return rotation.TokenResponse{Connection: acme, Key: rotation.ResponseKey{Epoch: 1, Generation: int64(n),
		Attempt: "a"},
		Source: rotation.FromRefresh, State: rotation.Saved, Sealed: bytes.Repeat([]byte{byte(n)}, 3000)}
}

// A process killed in the middle of writing loses nothing that was acknowledged.
func TestKilledProcessLosesNothing(t *testing.T) {
	dir := t.TempDir()
	for round := range 6 {
		cmd := child(t, "save", dir, false)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + round*7 {
			if !lines.Scan() {
				t.Fatal("the process ended by itself")
			}
		}
		if err := cmd.Process.Kill(); err != nil { // SIGKILL, while it writes on
			t.Fatal(err)
		}
		acknowledged := lines.Text()
		for lines.Scan() {
			acknowledged = lines.Text()
		}
		cmd.Wait()
		var last int
		if _, err := fmt.Sscan(acknowledged, &last); err != nil {
			t.Fatal(err)
		}

		s, err := embedded.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		_, responses, err := s.Ledger().Load(t.Context(), acme)
		if err != nil {
			t.Fatal(err)
		}
		if len(responses) != last+1 && len(responses) != last+2 { // the last one may have been written but not reported
			t.Errorf("round %d: %d responses are there, %d were acknowledged", round, len(responses), last+1)
		}
		for n, m := range responses {
			if !bytes.Equal(m.Sealed, numbered(n).Sealed) {
				t.Errorf("response %d has other bytes", n)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
