"""Restores a tree from a local store, as docs/artifact-format.md says and without any code of the product.

    python3 read_artifact.py STORE MANIFEST_KEY DESTINATION [PRIVATE_KEY_FILE]
The file is for sealed trees. Needs blake3, lz4 and zstandard from PyPI. Prints what it read as one line of JSON.
"""
import json
import os
import struct
import sys
from collections import Counter

import blake3
import lz4.block
import zstandard

RAW, FILL, LZ4, ZSTD, PLANES, DELTA = range(6)


def huffman(coded, size):
    lengths = [length for pair in coded[:128] for length in (pair & 15, pair >> 4)]
    codes, code = {}, 0
    for length in range(1, 12):
        for byte in (b for b in range(256) if lengths[b] == length):
            codes[length, int(format(code, f"0{length}b")[::-1], 2)] = byte
            code += 1
        code <<= 1
    table = {}
    for (length, bits), byte in codes.items():
        for high in range(1 << (11 - length)):
            table[bits | high << length] = (byte, length)
    quarter, out, at = -(-size // 4), bytearray(), 140
    sizes = struct.unpack("<3I", coded[128:140])
    for number in range(4):
        end = at + sizes[number] if number < 3 else len(coded)
        word, have, source = 0, 0, iter(coded[at:end])
        for _ in range(min(quarter, size - len(out))):
            while have < 11:
                word |= next(source, 0) << have
                have += 8
            byte, length = table[word & 2047]
            out.append(byte)
            word >>= length
            have -= length
        at = end
    return bytes(out)


def zstd(coded, size):
    return zstandard.ZstdDecompressor().decompress(coded, max_output_size=size)


def sparse(coded, size):
    bits, at = plane(coded, 0, -(-size // 8))
    rest = iter(plane(coded, at, sum(byte.bit_count() for byte in bits))[0])
    return bytes(next(rest) if bits[n // 8] >> n % 8 & 1 else 0 for n in range(size))


def plane(coded, at, size):
    coding, length = struct.unpack_from("<BI", coded, at)
    read = (lambda raw, _: raw, bytes.__mul__, huffman, zstd, sparse)[coding]
    return read(coded[at + 5 : at + 5 + length], size), at + 5 + length


def planes(coded, size):
    width, at, parts = coded[0], 1, []
    for _ in range(width if size >= width else 0):
        part, at = plane(coded, at, size // width)
        parts.append(part)
    bits, out = 8 * width, bytearray()
    for number in zip(*parts):
        value = int.from_bytes(number, "big")
        out += (value >> 1 | (value & 1) << (bits - 1)).to_bytes(width, "little")
    return bytes(out) + coded[at:]


def delta(coded, base):
    width, bits = coded[32], 8 * coded[32]
    order = lambda value: value ^ ((1 << bits - 1) - 1) * (value >> bits - 1)
    whole, out = len(base) // width * width, bytearray()
    steps = planes(coded[32:], len(base))
    for at in range(0, whole, width):
        step, then = (order(int.from_bytes(of[at : at + width], "little")) for of in (steps, base))
        out += order(step + then & (1 << bits) - 1).to_bytes(width, "little")
    return bytes(out) + steps[whole:]


def fill(stored, size):
    return (stored * (size // len(stored) + 1))[:size]


DECODE = {RAW: lambda raw, _: raw, FILL: fill, LZ4: lz4.block.decompress, ZSTD: zstd, PLANES: planes}


def main(store, key, destination, *private):
    with open(os.path.join(store, key), "rb") as file:
        raw = file.read()
    tree, unseal = json.loads(raw), None
    assert tree["version"] in (1, 2, 3), tree["version"]
    if tree["version"] == 3:
        from read_sealed import opened
        tree, unseal = opened(raw, *private)
    codecs, packs = Counter(), [open(os.path.join(store, pack), "rb") for pack in tree["packs"]]

    def read(digest, size, pack, offset, *coded):
        length, codec, *base = coded or (size, RAW)
        packs[pack].seek(offset)
        stored = packs[pack].read(length)
        if unseal:
            stored = unseal(tree["packs"][pack], offset, size, codec, stored)
        plain = delta(stored, read(*tree["bases"][base[0]])) if base else DECODE[codec](stored, size)
        assert blake3.blake3(plain).hexdigest() == digest, (pack, offset, codec)
        codecs[codec] += 1
        return plain

    for entry in tree["entries"]:
        path = os.path.join(destination, entry["path"])
        ((kind, node),) = entry["node"].items()
        os.makedirs(path if kind == "dir" else os.path.dirname(path), exist_ok=True)
        if kind == "link":
            os.symlink(node["target"], path)
        if kind != "file":
            continue
        with open(path, "wb") as out:
            for chunk in node["chunks"]:
                out.write(read(*chunk))
        os.chmod(path, node["mode"])
    print(json.dumps({"codecs": sorted(codecs.items()), "entries": len(tree["entries"])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
