"""Shapes of input: files around the borders of chunks and of a node's width, folders around the border of the hash trie, and names and links
of all kinds. The same on every run."""

import os
import pathlib
import random

CHUNK = 262144
WIDTH = 174
# The package carries Kubo 0.22; the peer does as Kubo does today.
DIFFER_FROM_THIS_KUBO = {
    "a folder at the border of the hash trie +0": "Kubo 0.22 makes a hash trie of exactly 256 KiB of names and CIDs, Kubo of today (and the peer) only of more",
}


def noise(seed, size):
    return random.Random(seed).randbytes(size)


def file(make):
    return lambda path: path.write_bytes(make())


def folder(build):
    def make(path):
        path.mkdir()
        build(path)
    return make


def fill(path, count, name=lambda number: f"entry-{number:05}", content=lambda number: b"content %d" % number):
    for number in range(count):
        (path / name(number)).write_bytes(content(number))


def names(*all_names):
    def build(path):
        for number, name in enumerate(all_names):
            with open(os.path.join(os.fsencode(path), os.fsencode(name)), "wb") as out:
                out.write(b"%d" % number)
    return folder(build)


def entries(count, **options):
    return folder(lambda path: fill(path, count, **options))


def entries_of(count):
    """As `entries`, with another content for every seed."""
    return lambda path, seed: entries(count, content=lambda number: b"%d of %s" % (number, seed.encode()))(path)


def around(sum_of_sizes):
    """A folder whose names and CIDs (34 bytes each) have this sum; Kubo makes a hash trie of what is larger than 256 KiB."""
    count = 1024
    rest = sum_of_sizes - 34 * count

    def name(number):
        return f"{number:04}".ljust(rest // count + (number < rest % count), "n")
    return folder(lambda path: fill(path, count, name))


def nested(depth):
    def build(path):
        for number in range(depth):
            (path / f"file{number}").write_bytes(noise(number, number * 10))
            path = path / f"level{number}"
            path.mkdir()
    return folder(build)


def links(path):
    (path / "target").write_text("here")
    (path / "below").mkdir()
    for name, to in {"relative": "target", "up": "../elsewhere", "gone": "no such thing", "absolute": "/dev/null", "folder": "below", "self": "self", "ünder": "zïel"}.items():
        (path / name).symlink_to(to)


def mixed(path):
    for number, size in enumerate([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 1_000_000]):
        (path / f"size-{number}").write_bytes(noise(number, size))
    (path / "empty").mkdir()
    (path / "deeper" / "still").mkdir(parents=True)
    (path / "deeper" / "still" / "leaf").write_text("leaf")


def large_in_small(path):
    (path / "many").mkdir()
    fill(path / "many", 5000)
    (path / "one").write_text("one")


def kinds_in_large(path):
    """A hash trie of files, folders and links."""
    fill(path, 4500, lambda number: f"a file with a rather long name {number:06}")
    for number in range(300):
        (path / f"folder with a rather long name {number}").mkdir()
        (path / f"link with a rather long name {number}").symlink_to(f"a file {number}")


def modes(path):
    fill(path, 4)
    (path / "entry-00000").chmod(0o755)
    (path / "entry-00001").chmod(0o400)
    os.utime(path / "entry-00002", (1, 1))


def hard_links(path):
    (path / "one").write_bytes(noise(1, 300_000))
    os.link(path / "one", path / "two")


def sparse(path):
    with open(path, "wb") as out:
        out.truncate(20 * CHUNK + 5)


def of_files():
    sizes = [0, 1, 2, 31, 32, 33, 127, 128, 255, 256, 1000, 16383, 16384, 65535, 65536, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1,
             3 * CHUNK, 10 * CHUNK + 7, 1_000_000, 10_000_000, WIDTH * CHUNK - 1, WIDTH * CHUNK, WIDTH * CHUNK + 1, (WIDTH + 1) * CHUNK, 2 * WIDTH * CHUNK + 1]
    for size in sizes:
        yield f"a file of {size} bytes", file(lambda size=size: noise(size, size))
    yield "zeros, one chunk", file(lambda: bytes(CHUNK))
    yield "zeros, three chunks and a bit", file(lambda: bytes(3 * CHUNK + 1))
    yield "a pattern longer than a chunk, repeated", file(lambda: noise(7, 300_000) * 5)
    yield "one chunk more often than a node is wide", file(lambda: noise(8, CHUNK) * (WIDTH + 2))
    yield "text", file(lambda: "Zeile für Zeile, line by line\n".encode() * 20_000)
    yield "a sparse file", sparse


def of_folders():
    yield "an empty folder", folder(lambda path: None)
    yield "a folder with an empty file", names("nothing")
    yield "a folder in a folder in a folder, all empty", folder(lambda path: (path / "a" / "b").mkdir(parents=True))
    yield "three empty folders side by side", folder(lambda path: [(path / name).mkdir() for name in "abc"])
    yield "nested 3 deep", nested(3)
    yield "nested 60 deep", nested(60)
    yield "links", folder(links)
    yield "mixed sizes", folder(mixed)
    yield "modes and times", folder(modes)
    yield "hard links", folder(hard_links)
    yield "the same content under many names", entries(50, content=lambda number: b"same")
    yield "names in another order than numbers", names("10", "9", "1", "a", "B", "A", "_", "~", "a.b", "a-b", "ab", "a b")
    yield "names with dots", names(".hidden", "..two", "...", "a.", ".a.b")
    yield "a hidden folder", folder(lambda path: nested(2)(path / ".hidden"))
    yield "names of other languages", names("ä", "a\u0308", "日本語", "Ελλάδα", "עברית", "🦀", "👩‍👩‍👧", "İ", "ß")
    yield "names with special signs", names("a b", " lead", "trail ", "per%20cent", "que?ry", "ha#sh", "quo\"te", "ap'os", "back\\slash", "co:lon", "semi;", "a=b&c", "*", "+")
    yield "names with control signs", names("new\nline", "tab\t", "re\rturn", "\x01", "\x7f")
    yield "names that are no text", names(b"\xff", b"\xc3\x28", b"latin-\xe9", b"\xed\xa0\x80")
    yield "the longest name", names("n" * 255)
    for count in [1, 2, 10, WIDTH - 1, WIDTH, WIDTH + 1, 1000, 5000, 6000]:
        yield f"a folder of {count} entries", entries(count)
    for more in [-1, 0, 1, 1000]:
        yield f"a folder at the border of the hash trie {more:+}", around(CHUNK + more)
    yield "a hash trie of names of other languages", entries(3000, name=lambda number: f"füße-日本語-🦀-{number}" + "é" * 30)
    yield "a hash trie of files, folders and links", folder(kinds_in_large)
    yield "a hash trie below a folder", folder(large_in_small)
    yield "a hash trie of files of several chunks", folder(lambda path: fill(path, 1200, lambda number: f"{number}".ljust(200, "x"), lambda number: noise(number, 300_000) if number % 100 == 0 else b"%d" % number))


def all_shapes():
    yield from of_files()
    yield from of_folders()
