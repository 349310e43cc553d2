"""Every test of the front on both loops: masters run on uvloop, whose transports differ in places from asyncio's."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
