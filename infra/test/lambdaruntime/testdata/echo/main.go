// Command bootstrap is a function that does what its event says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

type event struct {
	Do   string `json:"do"`
	Text string `json:"text"`
	File string `json:"file"`
}

func handle(ctx context.Context, e event) (map[string]any, error) {
	fmt.Println("handling", e.Do)
	switch e.Do {
	case "fail":
		return nil, errors.New(e.Text)
	case "panic":
		panic(e.Text)
	case "exit":
		os.Exit(3)
	case "hang": // reports that it is there, then waits for its end
		if err := os.WriteFile(e.File, nil, 0o600); err != nil {
			return nil, err
		}
		time.Sleep(time.Hour)
	}
	deadline, _ := ctx.Deadline()
	return map[string]any{"text": e.Text, "pid": os.Getpid(), "left_ms": time.Until(deadline).Milliseconds(),
		"who": os.Getenv("WHO"), "home": os.Getenv("HOME")}, nil
}

func main() {
	if os.Getenv("WHO") == "broken" {
		fmt.Fprintln(os.Stderr, "WHO is broken")
		os.Exit(1)
	}
	lambda.Start(handle)
}
