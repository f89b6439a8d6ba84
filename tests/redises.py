"""How does a test have keys of its own in a Redis, and how does it let time pass there?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests.settings import REDIS_PREFIX, REDIS_URL

NOWHERE = "redis://127.0.0.1:1"
"""Where no server is."""

_numbers = itertools.count()

# Moves back all that says when something is, or has been, to be taken.
_SHIFT = """
local by = tonumber(ARGV[2]) * 1000
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local name = string.match(key, '[^:]*$')
  if name == 'delayed' or name == 'leased' or name == 'since' then
    local found = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #found, 2 do
      redis.call('ZADD', key, found[i + 1] - by, found[i])
    end
  elseif name == 'messages' then
    local found = redis.call('HGETALL', key)
    for i = 1, #found, 2 do
      local published = tonumber(string.sub(found[i + 1], 17, 32))
      if published then
        local moved = string.format('%016.0f', published - by * 1000)
        local value = string.sub(found[i + 1], 1, 16) .. moved .. string.sub(found[i + 1], 33)
        redis.call('HSET', key, found[i], value)
      end
    end
  end
end
"""


def direct(url: str = REDIS_URL) -> redis.Redis:
    """Return a client that looks behind the broker's back."""
    return redis.Redis.from_url(url)


def new_prefix() -> str:
    return f"{REDIS_PREFIX}_{next(_numbers)}"


def wipe(prefix: str, url: str = REDIS_URL) -> None:
    """Remove all keys that begin with a prefix."""
    with direct(url) as client:
        for key in client.scan_iter(f"{prefix}:*", count=10_000):
            client.unlink(key)


@contextmanager
def own_prefix(url: str = REDIS_URL) -> Iterator[str]:
    """Give a prefix for keys, and leave none of them behind."""
    prefix = new_prefix()
    try:
        yield prefix
    finally:
        wipe(prefix, url)


def elapse(prefix: str, seconds: float, url: str = REDIS_URL) -> None:
    """Let time pass for the messages under a prefix."""
    with direct(url) as client:
        client.eval(_SHIFT, 0, f"{prefix}:*", seconds)
