"""Frames are read whole, however they are cut, and nothing else is ever taken for one."""

from __future__ import annotations

import random

import pytest

from pool.engine.hijack import FRAME
from pool.transport.remote.frames import (
    HEAD,
    KEY_BYTES,
    LARGEST_PAYLOAD,
    BadFrame,
    Frame,
    FrameReader,
    FrameType,
    frame,
    opening,
    seal_of,
)

KEY = bytes(range(100, 100 + KEY_BYTES))


def of_init(type: int, stream: int, payload: bytes) -> bytes:
    """A frame as init sends it, without a seal."""
    return HEAD.pack(type << 24 | len(payload), stream) + payload


class Read:
    """A reader, and what it has found."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.stderr = b""
        self.reader = FrameReader(KEY, self.frames.append, self._take)

    def _take(self, data: bytes) -> None:
        self.stderr += data


def in_pieces(data: bytes, chance: random.Random, number: int = 1) -> bytes:
    """What the engine makes of a container's output: pieces of any length."""
    pieces = b""
    while data:
        size = chance.randrange(1, len(data) + 1)
        pieces += FRAME.pack(number, size) + data[:size]
        data = data[size:]
    return pieces


@pytest.mark.parametrize("seed", range(30))
def test_frames_are_whole_however_they_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    frames = [
        Frame(
            chance.randrange(1, 8),
            chance.randrange(2**32),
            chance.randbytes(chance.choice((0, 1, 7, 40, 900))),
        )
        for _ in range(30)
    ]
    before = chance.randbytes(chance.randrange(100))
    wire = in_pieces(before + KEY + b"".join(of_init(*each) for each in frames), chance)
    wire = FRAME.pack(2, 5) + b"alas " + wire + FRAME.pack(2, 3) + b"end"
    read = Read()
    while wire:
        size = chance.randrange(1, 50)
        read.reader.feed(wire[:size])
        wire = wire[size:]
    assert read.frames == frames
    assert read.stderr == b"alas end"


def test_nothing_counts_before_the_key_also_when_it_comes_again() -> None:
    read = Read()
    data = of_init(3, 1, b"old") + KEY[:20] + KEY + of_init(3, 2, b"new")
    read.reader.feed(FRAME.pack(1, len(data)) + data)
    assert read.frames == [(3, 2, b"new")]
    read.reader.keyed = False
    data = of_init(3, 3, b"unheard") + KEY + of_init(6, 2, b"")
    read.reader.feed(FRAME.pack(1, len(data)) + data)
    assert read.frames[1:] == [(6, 2, b"")]


def test_a_frame_over_the_limit_and_a_piece_that_is_none_are_refused() -> None:
    large = KEY + HEAD.pack(3 << 24 | LARGEST_PAYLOAD + 1, 1)
    with pytest.raises(BadFrame, match="no frame"):
        Read().reader.feed(FRAME.pack(1, len(large)) + large)
    with pytest.raises(BadFrame, match="no piece of output"):
        Read().reader.feed(FRAME.pack(9, 1) + b"x")
    with pytest.raises(BadFrame, match="no piece of output"):
        Read().reader.feed(FRAME.pack(1, 2**31) + b"x")


@pytest.mark.parametrize("seed", range(20))
def test_rubbish_is_refused_or_waited_for(seed: int) -> None:
    chance = random.Random(seed)
    read = Read()
    read.reader.feed(FRAME.pack(1, KEY_BYTES) + KEY)
    try:
        for _ in range(50):
            data = chance.randbytes(chance.randrange(1, 300))
            read.reader.feed(FRAME.pack(chance.randrange(3), len(data)) + data)
    except BadFrame:
        return
    assert all(len(each.payload) <= LARGEST_PAYLOAD for each in read.frames)


def test_no_beginning_of_an_opening_looks_like_the_end_of_a_frame() -> None:
    seal = seal_of(KEY)
    whole = opening(KEY, 7)
    assert frame(FrameType.DATA, 1, b"x", seal).endswith(b"x" + seal)
    assert all(not whole[:cut].endswith(seal) for cut in range(len(whole)))
    assert whole.endswith(seal)
