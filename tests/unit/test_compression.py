"""Does what is compressed come back, and never more than may?"""

from __future__ import annotations

import gzip
import lzma
import tracemalloc

import pytest
from kombu import compression as kombus

from django_tasks.compression import COMPRESSIONS, compressed, expanded
from django_tasks.exceptions import DecodeError

NAMES = ["zlib", "bzip2", "lzma", "zstd", "brotli"]
each_name = pytest.mark.parametrize("name", NAMES)
TEXT = b"eine Nachricht, die sich lohnt. " * 40


@each_name
def test_what_is_compressed_comes_back_up_to_the_last_byte_of_the_limit(name: str) -> None:
    less, told = compressed(TEXT, name)
    assert len(less) < len(TEXT)
    assert told == COMPRESSIONS[name].content_type
    assert expanded(less, told) == TEXT
    assert expanded(less, told, limit=len(TEXT)) == TEXT
    with pytest.raises(DecodeError, match=f"more than {len(TEXT) - 1:,} bytes come out"):
        expanded(less, told, limit=len(TEXT) - 1)


@each_name
def test_what_would_grow_is_sent_as_it_is(name: str) -> None:
    assert compressed(b"[[],{},{}]", name) == (b"[[],{},{}]", None)


@each_name
def test_kombu_reads_what_we_compress_and_we_what_it_does(name: str) -> None:
    less, told = compressed(TEXT, name)
    assert told is not None
    if told in kombus._decoders:
        assert kombus.decompress(less, told) == TEXT
        theirs, as_told = kombus.compress(TEXT, name)
        assert expanded(theirs, as_told) == TEXT
    assert (told in kombus._decoders) or name in {"zstd", "brotli"}


@each_name
def test_a_bomb_gives_no_more_than_the_limit_and_takes_little_room(name: str) -> None:
    bomb = COMPRESSIONS[name].compress(bytes(48 << 20))
    tracemalloc.start()
    with pytest.raises(DecodeError, match="more than 1,048,576 bytes come out of"):
        expanded(bomb, COMPRESSIONS[name].content_type)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@each_name
def test_what_is_cut_or_changed_or_followed_is_a_decode_error(name: str) -> None:
    less, told = compressed(TEXT, name)
    assert told is not None
    for wrong in (b"", less[: len(less) // 2], less[:-1], less + b"more", b"no such thing" * 9):
        with pytest.raises(DecodeError, match=f"not valid {told}"):
            expanded(wrong, told)


def test_the_file_form_of_gzip_is_read_as_well() -> None:
    assert expanded(gzip.compress(TEXT), "application/x-gzip") == TEXT
    assert expanded(lzma.compress(TEXT, format=lzma.FORMAT_ALONE), "application/x-lzma") == TEXT


def test_a_compression_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(DecodeError, match=r"'application/x-rar' is not read here; known: zlib \(application/x-gzip\)"):
        expanded(TEXT, "application/x-rar")
