// Command healthcheck asks `tokenturn serve` in the same container whether it serves. The image has no
// shell and no curl that could ask.
//
//	healthcheck [PORT]
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	port := "8080"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	if err := check("http://127.0.0.1:" + port); err != nil {
		fmt.Fprintln(os.Stderr, "healthcheck:", err)
		os.Exit(1)
	}
}

func check(address string) error {
	client := http.Client{Timeout: 4 * time.Second}
	answer, err := client.Get(address + "/healthz")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s/healthz answered %s", address, answer.Status)
	}
	return nil
}
