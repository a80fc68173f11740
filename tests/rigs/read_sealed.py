"""Opens sealed manifests for read_artifact.py, as docs/artifact-format.md says and without any code of the product.

Needs cryptography from PyPI besides what that needs.
"""
import base64
import json
import struct

import blake3
import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive(context, material):
    return blake3.blake3(material, derive_key_context=context).digest()


def private_key(path):
    with open(path) as file:
        (line,) = (line for line in file if line.strip() and not line.startswith("#"))
    word, coded = line.split()
    assert word == "outlast-private-1", word
    return X25519PrivateKey.from_private_bytes(base64.b64decode(coded))


def manifest_key(told, private):
    public = private.public_key().public_bytes_raw()
    own = derive("outlast id of a public key, version 1", public)[:8].hex()
    wrapped = base64.b64decode(dict(told["recipients"])[own])
    made = wrapped[:32]
    shared = private.exchange(X25519PublicKey.from_public_bytes(made))
    info = b"outlast manifest key, version 3"
    wrapping = HKDF(hashes.SHA256(), 32, salt=made + public, info=info).derive(shared)
    key = AESGCM(wrapping).decrypt(bytes(12), wrapped[32:], b"")
    assert derive("outlast commitment to a manifest key, version 3", key).hex() == told["commitment"]
    return key


def opened(raw, key_file):
    """The ordinary manifest, and what opens a stored chunk."""
    clear, between, sealed = raw.rpartition(b',"sealed":"')
    assert between and sealed.endswith(b'"}')
    told = json.loads(raw)
    key = manifest_key(told, private_key(key_file))
    packed = AESGCM(key).decrypt(bytes(12), base64.b64decode(sealed[:-2]), clear)
    (size,) = struct.unpack("<I", packed[:4])
    plain = zstandard.ZstdDecompressor().decompress(packed[4:], max_output_size=size)
    chunks = told["chunks"]
    keys = {
        (told["packs"][chunk[2]], chunk[3]): (plain[32 * number : 32 * number + 32], chunk)
        for number, chunk in enumerate(chunks)
    }

    def unseal(pack, offset, size, codec, stored):
        key, (name, _, _, _, _, _, cipher) = keys[pack, offset]
        assert blake3.blake3(stored).hexdigest() == cipher, (pack, offset)
        bound = bytes.fromhex(name) + struct.pack("<IB", size, codec)
        return AESGCM(key).decrypt(stored[:12], stored[12:], bound)

    return json.loads(plain[32 * len(chunks) :]), unseal
