"""Extracts Jane Austen's six novels from Debian's package r-cran-janeaustenr, without R.

    apt-get download r-cran-janeaustenr && dpkg -x r-cran-janeaustenr_*.deb pkg
    python corpus.py pkg/usr/lib/R/site-library/janeaustenr/data OUT_DIR

Writes OUT_DIR/train.txt, OUT_DIR/heldout.txt and OUT_DIR/eval.txt: the last chapters of two novels are kept out of
training, one as the held-out text of `tiny`, one as the evaluation text for every model (assets/text). The package stores the novels as R character vectors (one element a
printed line) in a lazy-load database: `Rdata.rdx` is an index (name -> offset, length), `Rdata.rdb` the compressed
objects. Both are R's documented serialization format (R Internals, section 1.8), of which this reads the part needed.
"""

import bz2
import lzma
import struct
import sys
import zlib
from pathlib import Path

NOVELS = ["sensesensibility", "prideprejudice", "mansfieldpark", "emma", "northangerabbey", "persuasion"]
# File -> novel whose last chapters it holds, and the line they start with. They are never trained on.
HELD_OUT = {"heldout": ("persuasion", "Chapter 22"), "eval": ("mansfieldpark", "CHAPTER XLVI")}


class Unserializer:
    """Reads one R object in XDR serialization: vectors become lists, attributes become a `names` lookup."""

    def __init__(self, data):
        self.data, self.at, self.symbols = data, 0, []
        if self.take(2) != b"X\n":
            raise ValueError("not XDR serialization")
        version, _, _ = self.ints(3)
        if version == 3:
            self.take(self.ints(1)[0])  # name of the native encoding

    def take(self, n):
        self.at += n
        return self.data[self.at - n : self.at]

    def ints(self, n):
        return struct.unpack(f">{n}i", self.take(4 * n))

    def item(self):
        flags = self.ints(1)[0]
        kind, has_attributes, has_tag = flags & 255, flags & 512, flags & 1024
        if kind == 254:  # NULL
            return None
        if kind == 255:  # reference to a symbol seen before
            return self.symbols[(flags >> 8) - 1]
        if kind == 1:  # symbol
            self.symbols.append(self.item())
            return self.symbols[-1]
        if kind == 9:  # one string
            n = self.ints(1)[0]
            return None if n < 0 else self.take(n).decode("utf-8")
        if kind == 2:  # pair list
            pairs = {}
            while kind == 2:
                tag = self.item() if has_tag else None
                pairs[tag] = self.item()
                flags = self.ints(1)[0]
                kind, has_tag = flags & 255, flags & 1024
            return pairs
        n = self.ints(1)[0]
        if kind in (10, 13):  # logical, integer
            value = list(self.ints(n))
        elif kind == 14:  # double
            value = list(struct.unpack(f">{n}d", self.take(8 * n)))
        elif kind in (16, 19):  # strings, list
            value = [self.item() for _ in range(n)]
        else:
            raise ValueError(f"R type {kind} is not supported")
        names = (self.item() if has_attributes else {}).get("names")
        return dict(zip(names, value)) if names else value


def decompress(chunk):
    """One object of an .rdb file: big-endian length, then a type byte ('2' bzip2, 'Z' xz) or plain zlib."""
    if chunk[4:5] == b"2":
        return bz2.decompress(chunk[5:])
    if chunk[4:5] == b"Z":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
        try:
            return lzma.decompress(chunk[5:])
        except lzma.LZMAError:
            return lzma.decompress(chunk[5:], lzma.FORMAT_RAW, filters=filters)
    return zlib.decompress(chunk[4:])


def novels(folder):
    """Name -> full text (UTF-8, lines as printed) of the six novels."""
    index = Unserializer(zlib.decompress((folder / "Rdata.rdx").read_bytes(), wbits=47)).item()["variables"]
    database = (folder / "Rdata.rdb").read_bytes()
    texts = {}
    for name in NOVELS:
        offset, length = index[name]
        texts[name] = "\n".join(Unserializer(decompress(database[offset : offset + length])).item()).strip() + "\n"
    return texts


def main():
    texts = novels(Path(sys.argv[1]))
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for file, (novel, line) in HELD_OUT.items():
        text = texts[novel]
        cut = text.index(f"\n{line}\n") + 1
        end = max(text.rfind(word) for word in ("Finis", "THE END"))  # the printer's closing words are no prose
        texts[novel] = text[:cut].rstrip() + "\n"
        (out / f"{file}.txt").write_text(text[cut : end if end > cut else None].rstrip() + "\n", encoding="utf-8")
    (out / "train.txt").write_text("\n\n\n".join(texts.values()), encoding="utf-8")
    for file in ["train", *HELD_OUT]:
        print(f"{file}.txt: {(out / f'{file}.txt').stat().st_size} bytes")


if __name__ == "__main__":
    main()
