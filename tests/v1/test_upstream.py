"""The client of providers: the timeout around many short waits, and hanging up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.v1.upstream import AnswerTooLarge, Upstream, UpstreamTimeout, Watch


def run(test: Coroutine[Any, Any, str]) -> str:
    return asyncio.run(asyncio.wait_for(test, 20))


async def waiting(watch: Watch, seconds: float, limit: float) -> str:
    """Wait ``seconds`` under a limit; what came of it."""
    watch.start(asyncio.get_running_loop().time() + limit)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if watch.expired():
            return "expired"
        raise
    finally:
        watch.pause()
    return "done"


def test_a_wait_that_is_too_long_expires() -> None:
    assert run(waiting(Watch(), 10, 0.05)) == "expired"


def test_many_short_waits_never_add_up_to_one_that_is_too_long() -> None:
    async def test() -> str:
        watch = Watch()
        return ",".join({await waiting(watch, 0.02, 0.1) for _ in range(15)})

    assert run(test()) == "done"


def test_a_shorter_limit_after_a_longer_one_counts() -> None:
    async def test() -> str:
        watch = Watch()
        await waiting(watch, 0, 30)
        return await waiting(watch, 10, 0.05)

    assert run(test()) == "expired"


def test_a_wait_after_one_that_expired_has_its_whole_time() -> None:
    async def test() -> str:
        watch = Watch()
        await waiting(watch, 10, 0.05)
        return await waiting(watch, 0.1, 5)

    assert run(test()) == "done"


def test_a_pause_between_waits_does_not_count() -> None:
    async def test() -> str:
        watch = Watch()
        await waiting(watch, 0, 0.05)
        await asyncio.sleep(0.2)
        return await waiting(watch, 0, 0.05)

    assert run(test()) == "done"


def test_the_cancellation_of_somebody_else_stays_theirs() -> None:
    async def test() -> str:
        task = asyncio.create_task(waiting(Watch(), 10, 20))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "cancelled"

    assert run(test()) == "cancelled"


def test_an_answer_that_is_too_large_is_not_read_to_its_end(settings: Any) -> None:
    settings.MAX_ANSWER_BYTES = 100_000

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 10_000)
                await writer.drain()
        except ConnectionError:
            writer.close()

    async def ask() -> str:
        server = await asyncio.start_server(endless, "127.0.0.1", 0)
        address = "http://{}:{}/".format(*server.sockets[0].getsockname())
        upstream = Upstream()
        answer = upstream.post(address, {}, b"{}", connect_timeout=5, silence=15, total_timeout=15)
        try:
            async with answer:
                await answer.open(5)
                await answer.read_all(5)
        except AnswerTooLarge:
            return "refused"
        finally:
            await upstream.close()
            server.close()
        return "read"

    assert run(ask()) == "refused"


def test_a_provider_that_is_given_up_before_its_headers_is_hung_up_on_when_they_come() -> None:
    async def test() -> str:
        end: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        given_up = asyncio.Event()

        async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"hello")
            await given_up.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwords\r\n")
            end.set_result(await reader.read())
            writer.close()

        server = await asyncio.start_server(provider, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        upstream = Upstream()
        with pytest.raises(UpstreamTimeout):
            async with upstream.post(
                url, {}, b"hello", connect_timeout=5, silence=60, total_timeout=60
            ) as answer:
                await answer.open(0.1)
        given_up.set()
        assert await end == b""
        await upstream.close()
        return "hung up"

    assert run(test()) == "hung up"


def test_a_cancellation_that_meets_a_chunk_on_its_way_is_not_lost() -> None:
    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"hello")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"5\r\nwords\r\n")
            await asyncio.sleep(0.001)

    async def test() -> str:
        server = await asyncio.start_server(provider, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        upstream = Upstream()

        async def read_on() -> None:
            async with upstream.post(
                url, {}, b"hello", connect_timeout=5, silence=60, total_timeout=60
            ) as answer:
                await answer.open(5)
                while await answer.read(5):
                    pass

        readers = [asyncio.create_task(read_on()) for _ in range(40)]
        await asyncio.sleep(1)
        for reader in readers:
            reader.cancel()
            await asyncio.sleep(0.003)
        _, lost = await asyncio.wait(readers, timeout=3)
        for reader in lost:
            reader.cancel()
        await asyncio.wait(readers, timeout=3)
        await upstream.close()
        server.close()
        return f"{len(lost)} lost"

    assert run(test()) == "0 lost"
