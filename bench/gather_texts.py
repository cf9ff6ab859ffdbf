#!/usr/bin/env python3
"""Gathers real text of many kinds for the tokenizer's check and benchmark, from Debian packages.

    python3 bench/gather_texts.py FOLDER

Writes FOLDER/texts/KIND.txt, each up to 2 MB of well-formed UTF-8. Packages are downloaded once into
FOLDER/packages and unpacked there; nothing is installed. Left out are the characters that
JavaScript's expressions class differently from the tokenizer's: U+0085 and U+FEFF (white space), and
those that Unicode 14 does not know (needs Python 3.11 for that).
"""
import gzip
import os
import random
import re
import subprocess
import sys
import unicodedata

LIMIT = 2_000_000
PACKAGES = ("doc-debian debian-reference-en debian-reference-zh-cn debian-reference-ja manpages manpages-zh manpages-ja fortunes "
            "fortunes-zh python3-django iso-codes unicode-data golang-github-spf13-cobra-dev golang-golang-x-net-dev librust-regex-dev "
            "librust-serde-json-dev libruby3.1 php-pear tcllib lua-socket vim-runtime node-typescript cl-asdf "
            "libjs-jquery libc6-dev libstdc++-12-dev perl-modules-5.36 python3.11-examples libpython3.11-stdlib junit4-doc").split()

# What each kind is made of: the packages, and the names of the files in them.
KINDS = {
    "english": ("doc-debian debian-reference-en manpages fortunes vim-runtime", r"(\.txt|\.html?|/man\d/.*|/games/fortunes/[a-z-]+)(\.gz)?$"),
    "chinese": ("debian-reference-zh-cn manpages-zh fortunes-zh", r"(\.txt|\.html?|/zh_CN/man\d/.*|/fortunes/(tang300|song100|chinese))(\.gz)?$"),
    "chinese_traditional": ("manpages-zh", r"/zh_TW/man\d/.*$"),
    "japanese": ("debian-reference-ja manpages-ja", r"(\.txt|\.html?|/ja/man\d/.*)(\.gz)?$"),
    "arabic": ("python3-django", r"/(ar|fa|ur|he)/.*\.po$"),
    "languages": ("python3-django", r"/locale/(?!ar|fa|ur|he|en)[^/]*/.*\.po$"),
    "emoji": ("unicode-data", r"/(emoji|Emoji)[^/]*\.txt(\.gz)?$"),
    "unicode": ("unicode-data", r"/(NamesList|UnicodeData|NormalizationTest|GraphemeBreakTest)\.txt(\.gz)?$"),
    "json": ("iso-codes", r"\.json$"),
    "c": ("libc6-dev", r"\.h$"),
    "cpp": ("libstdc++-12-dev", r"/c\+\+/.*[a-z_]$"),
    "python": ("libpython3.11-stdlib python3-django", r"\.py$"),
    "javascript": ("node-typescript libjs-jquery", r"\.js$"),
    "typescript": ("node-typescript", r"\.d\.ts$"),
    "go": ("golang-github-spf13-cobra-dev golang-golang-x-net-dev", r"\.go$"),
    "rust": ("librust-regex-dev librust-serde-json-dev", r"\.rs$"),
    "ruby": ("libruby3.1", r"\.rb$"),
    "php": ("php-pear", r"\.php$"),
    "perl": ("perl-modules-5.36", r"\.p[lm]$"),
    "tcl": ("tcllib", r"\.tcl$"),
    "vim_lua_lisp": ("vim-runtime lua-socket cl-asdf", r"\.(vim|lua|lisp)$"),
    "html_css": ("python3-django junit4-doc", r"\.(html|css)$"),
}


def unpack(folder):
    packages = os.path.join(folder, "packages")
    os.makedirs(packages, exist_ok=True)
    for name in PACKAGES:
        target = os.path.join(packages, name)
        if os.path.isdir(target):
            continue
        done = subprocess.run(["apt-get", "download", "-q", name], cwd=packages, capture_output=True, text=True)
        files = [f for f in os.listdir(packages) if f.startswith(name + "_") and f.endswith(".deb")]
        if done.returncode or not files:
            sys.exit(f"apt-get download {name} failed; run apt-get update first\n{done.stderr}")
        subprocess.run(["dpkg-deb", "-x", files[0], name + ".part"], cwd=packages, check=True)
        os.rename(target + ".part", target)
    return packages


def texts_of(packages, names, pattern):
    paths = []
    for name in names.split():
        for folder, _, files in os.walk(os.path.join(packages, name)):
            paths += [os.path.join(folder, f) for f in files]
    for path in sorted(paths):
        if re.search(pattern, path) and os.path.isfile(path) and not os.path.islink(path):
            with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
                try:
                    yield file.read().decode("utf-8")
                except (UnicodeDecodeError, OSError):
                    continue


def logs(rng):
    words = "toaster slot bread heat timeout retry worker connection closed reset by peer loaded model cache miss".split()
    while True:
        yield (f"2026-05-{rng.randrange(1, 32):02} {rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02},"
               f"{rng.randrange(1000):03} [{rng.choice('abcdef')}-{rng.randrange(64)}] {rng.choice(['INFO', 'WARN', 'ERROR'])}  "
               f"{' '.join(rng.choices(words, k=rng.randrange(2, 9)))} id={rng.getrandbits(64):016x} took={rng.random() * 1e3:.3f}ms "
               f"/var/lib/{rng.choice(words)}/{rng.getrandbits(32)}.{rng.choice(['log', 'tmp', 'json'])} {rng.randrange(256)}.{rng.randrange(256)}.0.1:{rng.randrange(65536)}\n")


def random_bytes(rng):
    while True:
        yield rng.randbytes(4096).decode("utf-8", "replace")
        yield rng.randbytes(4096).decode("latin-1")
        yield "".join(chr(c) for c in (rng.randrange(0x30000) for _ in range(1024)) if not 0xD800 <= c < 0xE000)


def known(text):
    return "".join(c for c in text if c not in "\u0085\ufeff" and (c.isascii() or unicodedata.category(c) != "Cn"))


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}; 14.0.0 is needed")
    folder = sys.argv[1]
    packages = unpack(folder)
    rng = random.Random(1)
    sources = {kind: texts_of(packages, *where) for kind, where in KINDS.items()}
    sources |= {"logs": logs(rng), "random": random_bytes(rng)}
    os.makedirs(os.path.join(folder, "texts"), exist_ok=True)
    total = 0
    for kind, texts in sources.items():
        data = b""
        for text in texts:
            data += known(text).encode()
            if len(data) >= LIMIT:
                break
        data = data[:LIMIT].decode("utf-8", "ignore").encode()
        with open(os.path.join(folder, "texts", kind + ".txt"), "wb") as file:
            file.write(data)
        print(f"{kind:20} {len(data):9}")
        total += len(data)
    print(f"{'total':20} {total:9}")


main()
