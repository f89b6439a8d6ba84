"""How are bytes encrypted, so that nobody reads them and nobody changes them unseen? By XAES-256-GCM.

That is AES-256-GCM under a key of its own for each text, derived from the site's key and half of a nonce of 192 random
bits: https://c2sp.org/XAES-256-GCM. AES-GCM itself has room for 96 bits, which chance would repeat too soon: one key
may be used 2 to the power of 32 times (NIST SP 800-38D, section 8.3), and this one 2 to the power of 80.

This is loaded by name, once there is something to encrypt: the library takes a tenth of a second and ten megabytes.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

NONCE = 24
_HALF = 12
_BLOCK = 16
_REDUCTION = 0x87


class Xaes:
    """Encrypts and decrypts under one key of 32 bytes; any thread may call it."""

    def __init__(self, key: bytes) -> None:
        # Single blocks are what the derivation is made of, as the standard says; no text is encrypted so.
        self._blocks = Cipher(AES(key), ECB())  # noqa: S305  # see above
        doubled = int.from_bytes(self._encrypted(bytes(_BLOCK))) << 1
        if doubled >> 128:
            doubled = doubled & (1 << 128) - 1 ^ _REDUCTION
        self._mask = doubled

    def encrypt(self, text: bytes, bound: bytes, nonce: bytes | None = None) -> bytes:
        """Return a nonce and the encrypted text, which holds only together with what it is bound to."""
        nonce = nonce or os.urandom(NONCE)
        return nonce + self._derived(nonce).encrypt(nonce[_HALF:], text, bound)

    def decrypt(self, data: bytes, bound: bytes) -> bytes | None:
        """Return the text; None if this is not what this key encrypted, or it was bound to something else."""
        try:
            return self._derived(data[:NONCE]).decrypt(data[_HALF:NONCE], data[NONCE:], bound)
        except (InvalidTag, ValueError):
            return None

    def _derived(self, nonce: bytes) -> AESGCM:
        asked = (b"\x00" + bytes([number]) + b"X\x00" + nonce[:_HALF] for number in (1, 2))
        blocks = (int.from_bytes(block) ^ self._mask for block in asked)
        return AESGCM(self._encrypted(b"".join(block.to_bytes(_BLOCK) for block in blocks)))

    def _encrypted(self, blocks: bytes) -> bytes:
        return self._blocks.encryptor().update(blocks)
