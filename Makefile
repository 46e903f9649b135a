# Everything that can be done here, by one word each. `make` alone lists the words.

.DEFAULT_GOAL := help
.PHONY: help demo demo-s3 test check fuzz torture bench sbom release fmt clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## back up a throwaway PostgreSQL into a folder, verify, drill and restore it
	@scripts/demo.sh

demo-s3: ## the same into a real S3 server, then once more as a Lambda function
	@scripts/demo-s3.sh

test: ## all tests, against PostgreSQL 15-18, SeaweedFS and moto, which it installs and starts
	@scripts/test.sh

check: ## what CI runs: format, lints, templates and scripts, then all tests
	@scripts/check.sh

fuzz: ## made-up input for all that reads bytes from outside, 30 s each; FUZZ_SECONDS
	@scripts/fuzz.sh

torture: ## kills, signals, lost leases, failing stores and flipped bits at random; TORTURE_TIMES, TORTURE_SEED
	@scripts/torture.sh

bench: ## against stock pipelines and other tools, there and back; BENCH_ONLY, BENCH_MAJOR, BENCH_FRESH
	@bench/run.sh

sbom: ## what a release contains, as CycloneDX, into target/sbom
	@scripts/sbom.sh

release: ## program, Lambda layers, bill of materials and digests of this machine's architecture, into target/releases
	@scripts/release.sh

fmt: ## format the sources
	cargo fmt

clean: ## remove all that was built here; the installed tools stay
	@scripts/services.sh stop
	cargo clean
