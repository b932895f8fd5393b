//go:build !unix

package embedded_test

import "os/exec"

// nobody and asNobody are for root, whom only Unix has.
const nobody = -1

func asNobody(*exec.Cmd) {}
