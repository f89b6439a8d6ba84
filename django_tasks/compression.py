"""How are bodies made smaller, and how much comes out of one at most?

The names in the header are kombu's, so Celery reads what we compress and we read what it does. A body of a kilobyte can
stand for a gigabyte: nothing here gives more than it was asked for, however much more is inside.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django_tasks.encoding import LIMITS
from django_tasks.exceptions import DecodeError

try:
    import brotli
except ImportError:  # pragma: no cover
    brotli = None
try:
    from compression import zstd
except ImportError:
    try:
        from backports import zstd
    except ImportError:  # pragma: no cover
        zstd = None

_MEMORY = 64 << 20
"""Bytes that xz may take to decompress; what the largest of its usual levels needs, nearly."""
_WINDOW = 23
"""Zstandard's window is 2 to the power of this, in bytes; what every decoder has room for, as its format says."""


@dataclass(frozen=True, slots=True)
class Compression:
    """One way to make bytes smaller."""

    name: str
    content_type: str
    aliases: tuple[str, ...]
    compress: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], tuple[bytes, bool]]
    """Returns no more bytes than so many, and whether that is all there is."""
    missing: str = ""
    """What is to be installed before it works; empty when it does."""


def compressed(data: bytes, name: str) -> tuple[bytes, str | None]:
    """Return bytes compressed and how; as they are, and None, where they would not become less."""
    way = COMPRESSIONS[name]
    less = way.compress(data)
    return (less, way.content_type) if len(less) < len(data) else (data, None)


def expanded(data: bytes, content_type: str, limit: int = LIMITS.bytes) -> bytes:
    """Return what was compressed; raises DecodeError for more bytes than the limit, before they are made."""
    way = COMPRESSIONS.get(content_type)
    if way is None:
        known = ", ".join(f"{each.name} ({each.content_type})" for each in dict.fromkeys(COMPRESSIONS.values()))
        raise DecodeError(f"the compression {content_type[:200]!r} is not read here; known: {known}")
    if way.missing:
        raise DecodeError(f"the compression {content_type!r} needs a library: {way.missing}")
    try:
        found, ended = way.expand(data, limit + 1)
    except _ERRORS as error:
        raise DecodeError(f"not valid {content_type}: {str(error)[:200]}") from error
    if len(found) > limit:
        raise DecodeError(f"more than {limit:,} bytes come out of {len(data):,} compressed ones; that is the limit")
    if not ended:
        raise DecodeError(f"not valid {content_type}: it ends too soon, or something stands behind it")
    return found


def _expand_zlib(data: bytes, most: int) -> tuple[bytes, bool]:
    one = zlib.decompressobj(wbits=47)  # zlib's header or gzip's: kombu calls the first by the name of the second
    found = one.decompress(data, most)
    return found, one.eof and not one.unused_data


def _expand_stream(one: Any, data: bytes, most: int) -> tuple[bytes, bool]:
    found: bytes = one.decompress(data, most)
    # The end mark may be left when exactly all bytes have come.
    if not one.eof and len(found) < most and not one.needs_input:
        found += one.decompress(b"", most - len(found))
    return found, one.eof and not one.unused_data


def _expand_brotli(data: bytes, most: int) -> tuple[bytes, bool]:
    one = brotli.Decompressor()
    found: bytes = one.process(data, output_buffer_limit=most)
    while len(found) < most and not one.is_finished() and not one.can_accept_more_data():
        found += one.process(b"", output_buffer_limit=most - len(found))
    # The library may give a block more than it was asked for.
    return found[:most], one.is_finished()


def _expand_lzma(data: bytes, most: int) -> tuple[bytes, bool]:
    return _expand_stream(lzma.LZMADecompressor(memlimit=_MEMORY), data, most)


def _expand_zstd(data: bytes, most: int) -> tuple[bytes, bool]:
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW}
    return _expand_stream(zstd.ZstdDecompressor(options=options), data, most)


_ERRORS: tuple[type[Exception], ...] = (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, MemoryError)
if brotli is not None and not hasattr(brotli.Decompressor, "can_accept_more_data"):  # pragma: no cover
    brotli = None  # before 1.2 what comes out could not be bounded
if brotli is not None:
    _ERRORS = (*_ERRORS, brotli.error)
if zstd is not None:
    _ERRORS = (*_ERRORS, zstd.ZstdError)

_WAYS = (
    Compression("zlib", "application/x-gzip", ("gzip",), zlib.compress, _expand_zlib),
    Compression(
        "bzip2",
        "application/x-bz2",
        ("bzip",),
        bz2.compress,
        lambda data, most: _expand_stream(bz2.BZ2Decompressor(), data, most),
    ),
    Compression("lzma", "application/x-lzma", ("xz",), lzma.compress, _expand_lzma),
    Compression(
        "zstd",
        "application/zstd",
        ("zstandard",),
        lambda data: bytes(zstd.compress(data)),
        _expand_zstd,
        "" if zstd is not None else "pip install 'django-tasks-queue[zstd]'",
    ),
    Compression(
        "brotli",
        "application/x-brotli",
        (),
        lambda data: bytes(brotli.compress(data)),
        _expand_brotli,
        "" if brotli is not None else "pip install 'django-tasks-queue[brotli]'",
    ),
)

COMPRESSIONS = {key: each for each in _WAYS for key in (each.name, each.content_type, *each.aliases)}
"""By name, by content type and by alias; all as kombu has them."""
