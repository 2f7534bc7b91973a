# graphvol. `make help` lists the targets.

GO          ?= go
BIN         := bin/graphvol
AGENT       := bin/graphvol-agent
TOOLS       := $(CURDIR)/.tools
OUT         := $(CURDIR)/out
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X main.version=$(VERSION)
STATICCHECK := $(TOOLS)/staticcheck-v0.8.2
VERSITYGW   := $(TOOLS)/versitygw-v1.8.0
FUZZTIME    ?= 10s
PREFIX      ?= /usr/local
# mount(8) looks for its helpers here and nowhere else.
SBINDIR     ?= /sbin
UNITDIR     ?= $(PREFIX)/lib/systemd/system
DURATION    ?= 2m
RUNS        ?= 200
TROUBLES    ?= 100
DB_MODULE   := integration/databases
# Tests that hurt graphvol and measure how long it takes; "make crash" runs them, and long runs of the others.
HURT        := kill|ops

# The race detector needs a C compiler; without one the tests run without it.
RACE := $(shell command -v $${CC:-gcc} >/dev/null 2>&1 && echo -race)

.DEFAULT_GOAL := build
.PHONY: build test lint integration crash fuzz bench bench-quick demo cluster-demo proto install uninstall clean help setup versitygw

build: ## build bin/graphvol, and bin/graphvol-agent, which graphvol agent starts
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/graphvol
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(AGENT) ./cmd/graphvol-agent

setup: ## install what the tests need (Debian packages, as root; an S3 server), or say what is missing
	@$(MAKE) --no-print-directory $(VERSITYGW) || echo "no versitygw: what needs an S3 server is skipped"
	@$(GO) run ./integration/setup fusermount3 setfacl setfattr mkfs.ext4 mkfs.xfs mkfs.btrfs ip postgres $(if $(RACE),,gcc)

test: setup build ## everything that runs in minutes: unit tests, the real mount, short model runs
	$(GO) test -p 3 $(RACE) -timeout 9m $$($(GO) list ./... | sort -r | grep -vE 'integration/($(HURT))$$')

lint: ## gofmt, go vet, staticcheck, direction of imports
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); if [ -n "$$out" ]; then echo "not gofmt'ed:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(MAKE) --no-print-directory $(STATICCHECK)
	$(STATICCHECK) ./...
	$(GO) test -count=1 -run '^TestImport' ./integration/layering
	cd $(DB_MODULE) && $(GO) vet ./... && $(STATICCHECK) ./...

$(STATICCHECK):
	GOBIN=$(TOOLS) $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2
	mv $(TOOLS)/staticcheck $@

$(VERSITYGW):
	CGO_ENABLED=0 GOBIN=$(TOOLS) $(GO) install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	mv $(TOOLS)/versitygw $@

versitygw: $(VERSITYGW) # the S3 server of the tests: says where it is
	@echo $(VERSITYGW)

integration: setup build ## long model runs, real databases (Node, rocksdb-tools), troubles of a cluster; DURATION=2m
	$(GO) run ./integration/setup node npm db_bench
	$(GO) test -count=1 -timeout 3h -v ./integration -run 'TestModel|TestAcknowledged' -model.duration $(DURATION)
	cd $(DB_MODULE) && $(GO) test -count=1 -timeout 3h -v ./... -databases -bin $(CURDIR)/$(BIN) -cache $(OUT)/databases
	$(GO) test -count=1 -timeout 3h -v ./integration/cluster -cluster.matrix -cluster.liveness -cluster.schedules -cluster.members -cluster.runs $(TROUBLES)

crash: build ## RUNS=200 power cuts, as many kills under load, faults, bad input, upgrades, long use (as root; an hour)
	$(GO) test -count=1 -timeout 5h -v ./integration/crash -crash.runs $(RUNS)
	$(GO) test -count=1 -timeout 5h -v ./integration/kill -kill.runs $(RUNS)
	$(GO) test -count=1 -timeout 5h -p 1 ./integration/faults ./integration/damage ./integration/ops ./integration/input ./integration/soak

fuzz: ## every fuzz test, FUZZTIME=10s each
	$(GO) run ./integration/fuzz -time $(FUZZTIME)

bench: build ## the figures of docs/benchmarks.md, beside borg, restic and the plain disk (needs 40 GiB)
	$(GO) run ./integration/bench -bin $(CURDIR)/$(BIN) -out $(OUT)/bench

bench-quick: build ## the same cases, scaled down to minutes
	$(GO) run ./integration/bench -bin $(CURDIR)/$(BIN) -out $(OUT)/bench -quick

demo: build ## mount, fill a graph store, snapshot, change 1%, snapshot, browse, restore, compare
	@$(GO) run ./integration/setup fusermount3
	@cd $(DB_MODULE) && $(GO) run ./demo -bin $(CURDIR)/$(BIN)

cluster-demo: build ## three agents, clients, snapshots of the cluster, a cut network, a restore
	@$(GO) run ./integration/setup fusermount3 ip
	@$(GO) run ./integration/cluster/demo -bin $(CURDIR)/$(BIN)

proto: ## regenerate agent/api (needs protoc; only for developers)
	GOBIN=$(TOOLS) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(TOOLS) $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	PATH=$(TOOLS):$$PATH protoc --go_out=. --go_opt=paths=source_relative \
		--go-grpc_out=. --go-grpc_opt=paths=source_relative $(wildcard agent/api/*.proto)

install: build ## program, mount(8)'s helpers, systemd units, dashboard, completions and docs; PREFIX=/usr/local, DESTDIR=, SBINDIR=/sbin
	install -d $(addprefix $(DESTDIR),$(PREFIX)/bin $(SBINDIR) $(UNITDIR) /etc/graphvol $(PREFIX)/share/doc/graphvol \
		$(PREFIX)/share/bash-completion/completions $(PREFIX)/share/zsh/site-functions $(PREFIX)/share/fish/vendor_completions.d)
	install -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/bin/.graphvol.new
	mv -f $(DESTDIR)$(PREFIX)/bin/.graphvol.new $(DESTDIR)$(PREFIX)/bin/graphvol
	install -m 0755 $(AGENT) $(DESTDIR)$(PREFIX)/bin/.graphvol-agent.new
	mv -f $(DESTDIR)$(PREFIX)/bin/.graphvol-agent.new $(DESTDIR)$(PREFIX)/bin/graphvol-agent
	ln -sfn $(PREFIX)/bin/graphvol $(DESTDIR)$(SBINDIR)/mount.fuse.graphvol
	ln -sfn $(PREFIX)/bin/graphvol $(DESTDIR)$(SBINDIR)/mount.graphvol
	sed 's#/usr/local/#$(PREFIX)/#' contrib/systemd/graphvol@.service > $(DESTDIR)$(UNITDIR)/graphvol@.service
	sed 's#/usr/local/#$(PREFIX)/#' contrib/systemd/graphvol-agent.service > $(DESTDIR)$(UNITDIR)/graphvol-agent.service
	install -d $(DESTDIR)$(PREFIX)/share/graphvol
	install -m 0644 contrib/grafana/graphvol.json contrib/prometheus/graphvol.rules.yaml $(DESTDIR)$(PREFIX)/share/graphvol
	$(BIN) completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/graphvol
	$(BIN) completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_graphvol
	$(BIN) completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/graphvol.fish
	install -m 0644 README.md CHANGELOG.md LICENSE docs/*.md $(DESTDIR)$(PREFIX)/share/doc/graphvol

uninstall: ## remove what install made; volumes and /etc/graphvol stay
	cd $(DESTDIR)/ && rm -f .$(PREFIX)/bin/graphvol .$(PREFIX)/bin/graphvol-agent .$(SBINDIR)/mount.fuse.graphvol .$(SBINDIR)/mount.graphvol .$(UNITDIR)/graphvol@.service .$(UNITDIR)/graphvol-agent.service \
		.$(PREFIX)/share/bash-completion/completions/graphvol .$(PREFIX)/share/zsh/site-functions/_graphvol .$(PREFIX)/share/fish/vendor_completions.d/graphvol.fish
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/graphvol $(DESTDIR)$(PREFIX)/share/graphvol

clean: ## remove what the build and the tests made
	rm -rf bin out .tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
