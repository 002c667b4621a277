"""Tasks that await others in every way that asyncio has; all CPU time is spent in `leaf`. Python 3.8 and later."""

import asyncio


def burn():
    for i in range(3000):
        i * i


async def leaf():
    await asyncio.sleep(0)
    burn()


class Awaitable:
    def __await__(self):
        return leaf().__await__()


async def several():
    while True:
        await Awaitable()
        await asyncio.sleep(0)
        yield 1


async def by_task():
    while True:
        await asyncio.ensure_future(leaf())


async def by_gather():
    while True:
        await asyncio.gather(leaf(), leaf())


async def by_wait():
    while True:
        await asyncio.wait([asyncio.ensure_future(leaf())])


async def by_wait_for():
    while True:
        await asyncio.wait_for(leaf(), 5)


async def by_shield():
    while True:
        await asyncio.shield(leaf())


async def by_generator():
    async for _ in several():
        pass


async def by_group():
    while True:
        async with asyncio.TaskGroup() as group:
            group.create_task(leaf())
            group.create_task(leaf())


async def main():
    ways = [by_task(), by_gather(), by_wait(), by_wait_for(), by_shield(), by_generator()]
    if hasattr(asyncio, "TaskGroup"):
        ways.append(by_group())
    print("ready", flush=True)
    await asyncio.gather(*ways)


asyncio.run(main())
