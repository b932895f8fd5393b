// Package release says which release of tokenturn a program was built from.
package release

import "runtime/debug"

// version is set by the linker in the programs of `make dist`, which have no module version:
// -ldflags '-X github.com/tokenturn/tokenturn/pkg/release.version=v1.2.3'.
var version string

// Version is the version that `make dist` gave the program. Otherwise it is the module version of the
// build, such as v1.2.3, and "dev" if the build has none.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
