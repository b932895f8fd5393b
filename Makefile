# tokenturn
#
#   make run          runs the whole system on this machine, with a stand-in for Procore; needs nothing else
#   make run ADDR=localhost:9000  the same, where port 8080 is taken
#   make check        format, vet, staticcheck, short tests: the inner loop; under a minute once built
#   make test         runs every check that needs only Go; about three minutes on two idle processors
#   make race         runs the command's scripts and stories of days with the race detector; a part of make conformance
#   make conformance  runs the compiled functions against moto's AWS and a real Doorkeeper; installs what it needs
#   make build        builds the functions for AWS (build/*/bootstrap) and the command for this machine (build/tokenturn)
#   make deploy-local tries the template and the runbooks on this machine, with moto as AWS; needs Go and Python
#   make dist         makes the files of a release in build/dist: archives, packages, image, Lambda zips, checksums
#   make man          writes the command's manual pages to build/man
#   make deploy       builds, runs infra/test/lint, then sam deploy (CONFIG=infra/sandbox.toml or infra/production.toml)
#   make soak         pairs of faults, the engine without each of its rules, an hour of fuzzing, random kills, every file fault; takes a night
#   make bench        runs the benchmarks
#   make clean        removes build/

.PHONY: run check test conformance build tokenturn man deploy deploy-local soak bench clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#  *\(make .*\)/\1/p' $(MAKEFILE_LIST)
.PHONY: help

# The race detector needs cgo, and cgo a C compiler. SQLite is C that a program has translated: it has locks of its
# own, and would take most of the time. A package without the detector must have no generic functions, because the
# linker may take its copy of them for all packages.
RACE := $(shell [ "$$(go env CGO_ENABLED)" = 1 ] && command -v "$$(go env CC)" >/dev/null 2>&1 && \
	echo -race -gcflags=modernc.org/sqlite/lib=-race=false)

# A program with the race detector sleeps for a second when it ends, unless atexit_sleep_ms says otherwise,
# and the command's tests start hundreds.
race raced: export GORACE := atexit_sleep_ms=10

# The explorer makes gigabytes of garbage, and its goroutines yield by themselves.
EXPLORER := GOGC=800 GODEBUG=asyncpreemptoff=1

# The explorer and stories of hours, of a month or of thousands of connections run without the race detector,
# which makes them ten times slower and finds nothing in them that shorter tests do not have.
LONG := TestEveryFaultIsSurvived|TestABacklog|TestOneFailureCosts|TestOneHour|TestAMonth|TestAWipe|TestClocksThatStay|TestAThousand
# These run with the race detector in `make conformance` only: stories of a day or more, and tests that start many
# programs. The scripts of programs that do several things at once (console, serve, serve_demo, worker) are not here.
PLAIN := TestReadersAlways|TestWhatOneRun|TestOneMinute|TestAskingForMore|TestEverySuiteCanFail|TestRemediesHelp
PROGRAMS := TestExamples|TestExperiments$$|TestWorkerKilled|TestSetup|TestAnswersToTheQuestion|TestBadInput|TestCommandsOnPages
SCRIPTS := TestScripts/^(app|connection|credentials|doctor|fsck|invitation|profile|proxy|remedies|setup|stack|token|usage)
# Too slow for `make check`.
SLOW := $(PROGRAMS)|TestRemediesHelp|TestScripts/^remedies

# The demo is a line of its own, without a shell around it: so Ctrl-C, which reaches all of them, ends it without a
# message of make or of the shell. It exits with 0.
ADDR ?= localhost:8080
run:
	@echo "Compiling tokenturn. The first time takes a minute or two."
	@go build -trimpath -o build/tokenturn ./cmd/tokenturn
	@build/tokenturn serve --demo --addr $(ADDR)

STATICCHECK := go tool -modfile infra/test/tools/go.mod staticcheck

check: lint
	go test -p 4 -short -vet=off -timeout 20m -skip '$(LONG)|$(SLOW)' ./...

lint: # go test runs without vet below, as this runs all of it
	@unformatted=$$(gofmt -l cmd events functions infra pkg) && test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	go vet ./...
	go vet -tags 'conformance soak mutations' ./...
	$(STATICCHECK) ./...
.PHONY: lint

# Two halves side by side: many tests wait for a server or for a program, and leave a processor idle.
test: lint
	@test -n "$(RACE)" || echo "No C compiler: the race detector is OFF."
	@$(MAKE) --no-print-directory -j2 raced unraced

raced:
	go test $(RACE) -vet=off -timeout 60m -skip '$(LONG)|$(PLAIN)|$(PROGRAMS)|$(SCRIPTS)' $$(go list ./... | grep -v /infra/test$$)

unraced: # infra/test reads files, one thing at a time
	go test -vet=off -timeout 60m -run '$(PROGRAMS)|$(SCRIPTS)' ./cmd/tokenturn
	$(EXPLORER) go test -vet=off -timeout 60m -run '$(LONG)|$(PLAIN)' ./pkg/rotation/... ./pkg/console ./pkg/fsck
	go test -vet=off ./infra/test
.PHONY: raced unraced

race:
	go test $(RACE) -vet=off -timeout 60m -run '$(PLAIN)|$(PROGRAMS)|$(SCRIPTS)' ./cmd/tokenturn ./pkg/rotation/... ./pkg/fsck
.PHONY: race

conformance:
	infra/test/conformance/run

# Of the functions, as the deployment's parameter of this name, which only its toml file sets.
ARCHITECTURE = $(or $(shell sed -n 's/^ *"Architecture=\([a-z0-9_]*\)",*$$/\1/p' '$(CONFIG)'),arm64)

# Flags for small binaries that start fast: see the AWS SAM and Lambda build notes for Go.
FUNCTION = CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCHITECTURE:x86_64=amd64) go build -tags lambda.norpc -trimpath -ldflags '-s -w -buildid='

build: tokenturn
	$(FUNCTION) -o build/rotate/bootstrap ./functions/rotate
	$(FUNCTION) -o build/callback/bootstrap ./functions/callback
	$(FUNCTION) -o build/example-reader/bootstrap ./functions/example-reader

tokenturn:
	go build -trimpath -o build/tokenturn ./cmd/tokenturn

man:
	go run ./cmd/tokenturn man build/man

dist:
	go run ./infra/dist
.PHONY: dist

CONFIG ?= infra/sandbox.toml
deploy: build
	infra/test/lint
	sam deploy --template-file template.yaml --config-file $(abspath $(CONFIG))

deploy-local:
	go run ./infra/test/deploylocal

soak:
	$(EXPLORER) go test -tags soak -count=1 -timeout 12h -v -run 'TestEveryFaultIsSurvived|TestThirtyDaysWithFaults' ./pkg/rotation
	$(EXPLORER) go test -tags mutations -count=1 -timeout 1h -v -run TestEveryRuleIsNeeded ./pkg/rotation -thorough
	infra/test/conformance/fuzz 3600
	go test -tags 'conformance soak' -count=1 -timeout 1h -v -run 'TestKilledAtAnyTime|FilesFail|TestReadersOnOneMachine' ./infra/test/conformance

bench:
	go test -run '^$$' -bench . -benchmem ./...

clean:
	rm -rf build
