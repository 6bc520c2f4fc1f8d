# davit: build, demo, test. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PLUGINS := storage-overlay storage-copy network-bridge runtime-native runtime-oci volume-local volume-tmpfs
PREFIX  ?= /usr/local
LIBDIR  := $(PREFIX)/lib/davit
LDFLAGS := -s -w -X github.com/davit-engine/davit/config.Version=$(VERSION)
# Without gRPC's tracing pages, which bring HTML templates, the linker can leave
# out what is never called.
TAGS    := grpcnotrace
TOOLS   := build/tools

export CGO_ENABLED ?= 0
export GOFLAGS ?= -buildvcs=false

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

.PHONY: build
build: ## build client, core, monitor, init, OCI runtime and plugins into bin/
	@mkdir -p bin/plugins
	go build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/davit ./cmd/davitd
	go build -tags $(TAGS) -trimpath -ldflags '-s -w' -o bin/ ./cmd/davit-monitor ./cmd/davit-log-compress ./cmd/davit-init ./cmd/davit-conformance
	go build -tags $(TAGS) -trimpath -ldflags '-s -w -X github.com/davit-engine/davit/plugins/runtime-native/davit-oci/command.Version=$(VERSION)' -o bin/ ./plugins/runtime-native/davit-oci
	@set -e; for p in $(PLUGINS); do \
	  echo "go build ./plugins/$$p"; \
	  go build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o bin/plugins/davit-$$p ./plugins/$$p; \
	  sum=$$(sha256sum bin/plugins/davit-$$p | cut -d' ' -f1); \
	  sed "0,/{/s//{\n  \"sha256\": \"$$sum\",/" plugins/$$p/davit-$$p.json > bin/plugins/davit-$$p.json; \
	done
	@chmod go-w bin bin/plugins bin/plugins/*

.PHONY: demo
demo: build ## run a container end to end on a private engine, offline
	@test/setup.sh demo
	go run ./test/demo

.PHONY: test
test: build ## install what the tests need, then run all of them
	@test/setup.sh test
	go test -count=1 -timeout 30m ./...

.PHONY: race
race: ## unit tests under the race detector
	@test/setup.sh race
	CGO_ENABLED=1 go test -race -count=1 -timeout 30m $$(go list ./... | grep -v /test)

.PHONY: test-vm
test-vm: build ## the end-to-end tests on a cgroup v2 kernel in QEMU
	@test/setup.sh vm
	test/vm/run.sh
	test/vm/run.sh -systemd

.PHONY: bench
bench: build ## measure davit beside the peers that are installed
	go run ./test/bench
	go run ./test/bench/runtime
	go run ./test/bench/start -trace
	go test -run '^$$' -bench Throughput ./plugins/network-bridge/bridge

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## golangci-lint, go vet, gofmt, go mod tidy
	@test -z "$$(gofmt -l cmd config core plugins sdk test examples)" || { gofmt -l cmd config core plugins sdk test examples; echo "run gofmt -w on these files"; exit 1; }
	go mod tidy -diff
	$(TOOLS)/golangci-lint run ./...

.PHONY: proto
proto: $(TOOLS)/buf $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## generate Go code from the protos
	cd sdk/proto && PATH="$(CURDIR)/$(TOOLS):$$PATH" buf lint && PATH="$(CURDIR)/$(TOOLS):$$PATH" buf generate

.PHONY: proto-check
proto-check: proto ## fail if the generated code is stale
	@git diff --exit-code --stat -- sdk/proto || { echo "generated code is stale: run make proto and commit"; exit 1; }

$(TOOLS)/%:
	@mkdir -p $(TOOLS)
	cd .ci/tools && GOFLAGS= go build -o ../../$(TOOLS)/ $$(GOFLAGS= go list -f '{{.ImportPath}}' tool | grep '/$*$$')

.PHONY: install
install: build ## install under PREFIX (default /usr/local), with the systemd unit
	install -d -m 0755 $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBDIR)/plugins $(DESTDIR)/etc/davit $(DESTDIR)/etc/systemd/system
	install -m 0755 bin/davit bin/davitd bin/davit-oci $(DESTDIR)$(PREFIX)/bin/
	install -m 0755 bin/davit-monitor bin/davit-log-compress bin/davit-init bin/davit-conformance $(DESTDIR)$(LIBDIR)/
	install -m 0755 $(addprefix bin/plugins/davit-,$(PLUGINS)) $(DESTDIR)$(LIBDIR)/plugins/
	install -m 0644 $(addsuffix .json,$(addprefix bin/plugins/davit-,$(PLUGINS))) $(DESTDIR)$(LIBDIR)/plugins/
	test -e $(DESTDIR)/etc/davit/davit.toml || install -m 0644 config/davit.toml $(DESTDIR)/etc/davit/davit.toml
	sed 's|/usr/local|$(PREFIX)|g' config/davitd.service > $(DESTDIR)/etc/systemd/system/davitd.service

.PHONY: uninstall
uninstall: ## remove what install put there; data under /var/lib/davit stays
	rm -f $(DESTDIR)$(PREFIX)/bin/davit $(DESTDIR)$(PREFIX)/bin/davitd $(DESTDIR)$(PREFIX)/bin/davit-oci $(DESTDIR)/etc/systemd/system/davitd.service
	rm -rf $(DESTDIR)$(LIBDIR)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin build
