"""Keys and signatures on the curve P-256: ECDSA with SHA-256, in the standard library alone.

The arithmetic does not take constant time, which Python's integers cannot do. That is acceptable for certificates: a
key signs when one is made, on the operator's machine, and nobody can ask for signatures to measure. The handshakes of a
server are OpenSSL's work. Do not use `sign` for anything that a client can trigger.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Callable

# The curve P-256, which is y² = x³ - 3x + b: FIPS 186-4, section D.1.2.3. `P` is the prime of the field, `N` the order
# of the base point `G`.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def new_key(token_bytes: Callable[[int], bytes]) -> int:
    """Make a private key of random bytes."""
    # 64 bits more than the order has make the remainder even: FIPS 186-4 section B.4.1
    return int.from_bytes(token_bytes(40), "big") % (N - 1) + 1


def public_point(key: int) -> tuple[int, int]:
    """Multiply the base point by `key`, which is from 1 to N - 1.

    Jacobian coordinates (x = X/Z², y = Y/Z³) need one inversion in all. What is added to is at most N - 2 times the
    base point and at least twice, so that it is never infinity nor the base point or its opposite: the cases the
    formulas leave out.
    """
    x, y, z = *G, 1
    for bit in bin(key)[3:]:
        x, y, z = _double(x, y, z)
        if bit == "1":
            x, y, z = _add_base(x, y, z)
    inverse = pow(z, -1, P)
    return x * inverse**2 % P, y * inverse**3 % P


def _double(x: int, y: int, z: int) -> tuple[int, int, int]:
    """Double a point; from the tangent's slope for a curve with -3x."""
    slope = 3 * (x - z * z) * (x + z * z) % P
    square = y * y % P
    product = 4 * x * square % P
    doubled = (slope * slope - 2 * product) % P
    return doubled, (slope * (product - doubled) - 8 * square * square) % P, 2 * y * z % P


def _add_base(x: int, y: int, z: int) -> tuple[int, int, int]:
    """Add the base point."""
    square = z * z % P
    run, rise = (G[0] * square - x) % P, (G[1] * square * z - y) % P
    run2 = run * run % P
    run3, product = run2 * run % P, x * run2 % P
    added = (rise * rise - run3 - 2 * product) % P
    return added, (rise * (product - added) - y * run3) % P, run * z % P


def encode_point(point: tuple[int, int]) -> bytes:
    """Encode a point in the uncompressed form: RFC 5480 section 2.2."""
    return b"\x04" + b"".join(coordinate.to_bytes(32, "big") for coordinate in point)


def sign(key: int, message: bytes) -> tuple[int, int]:
    """Sign with ECDSA and SHA-256: FIPS 186-4 section 6.4, with the nonce of RFC 6979, so that none can repeat or be
    guessed.
    """
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    for nonce in _nonces(key, digest):
        r = public_point(nonce)[0] % N
        s = pow(nonce, -1, N) * (digest + r * key) % N
        if r and s:
            return r, s
    raise AssertionError("the nonces never end")


def _nonces(key: int, digest: int) -> Iterator[int]:
    """Generate the candidates, most likely only one: RFC 6979 section 3.2, steps b to h."""
    seed = key.to_bytes(32, "big") + (digest % N).to_bytes(32, "big")
    k, v = bytes(32), b"\x01" * 32
    for separator in (b"\x00", b"\x01"):
        k = _hmac(k, v + separator + seed)
        v = _hmac(k, v)
    while True:
        v = _hmac(k, v)
        nonce = int.from_bytes(v, "big")
        if 0 < nonce < N:
            yield nonce
        k = _hmac(k, v + b"\x00")
        v = _hmac(k, v)


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
