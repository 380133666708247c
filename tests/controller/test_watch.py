"""Jobs and pods as they change: what is known after lists, events, broken streams and refusals."""

import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client as official

from patho_api import names
from patho_operator import client, cluster, observed, watch
from patho_operator.observed import Job, Key, Pod
from patho_operator.shelf import Shelf
from tests.controller.builders import make_pod, make_pretrain

KEY = Key(names.PRETRAIN, "lab", "vits16")


def pod(uid="p", version=1, run="vits16", **more):
    body = make_pod(make_pretrain(), uid=uid, **more)
    body["metadata"] |= {"resourceVersion": str(version), "namespace": "lab"}
    body["metadata"]["labels"] = body["metadata"]["labels"] | {names.LABEL_RUN: run, names.LABEL_KIND: names.PRETRAIN}
    return body


def seen(**what):
    return observed.pod(pod(**what))


def test_what_decides_nothing_is_no_news():
    shelf = Shelf[Pod]()
    assert shelf.put(KEY, seen(version=1, pending=True)) == [KEY]
    assert shelf.put(KEY, seen(version=2, pending=True)) == []
    assert shelf.put(KEY, seen(version=3)) == [KEY]
    assert [each.version for each in shelf[KEY]] == [3]


def test_an_event_that_comes_late_changes_nothing():
    shelf = Shelf[Pod]()
    shelf.put(KEY, seen(version=5))
    assert shelf.put(KEY, seen(version=4, pending=True)) == []
    assert [each.phase for each in shelf[KEY]] == ["Running"]


def test_a_child_whose_label_is_edited_belongs_to_another_resource():
    shelf, other = Shelf[Pod](), Key(names.PRETRAIN, "lab", "other")
    shelf.put(KEY, seen())
    assert shelf.put(other, seen(version=2)) == [other, KEY]
    assert list(shelf) == [other]


def test_a_complete_list_drops_what_it_does_not_show_unless_that_is_newer():
    shelf = Shelf[Pod]()
    for uid, version in (("listed", 1), ("gone", 2), ("new", 9)):
        shelf.put(KEY, seen(uid=uid, version=version))
    assert shelf.keep({"listed"}, version=5, namespace="lab") == [KEY]
    assert {each.uid for each in shelf[KEY]} == {"listed", "new"}
    assert shelf.drop("unknown") == []


def test_a_list_of_one_namespace_says_nothing_of_another():
    shelf, other = Shelf[Pod](), Key(names.PRETRAIN, "clinic", "vits16")
    shelf.put(KEY, seen(uid="mine", version=1))
    shelf.put(other, seen(uid="theirs", version=2))
    assert shelf.keep({"mine"}, version=5, namespace="lab") == []
    assert shelf.keep(set(), version=5, namespace="") == [KEY, other]


class Server:
    """Lists and streams, in the order in which they are asked for."""

    def __init__(self, lists, streams):
        self.lists, self.streams, self.asked = lists, streams, []

    async def handle(self, request):
        self.asked.append(request.query.get("resourceVersion", "list"))
        if "watch" not in request.query:
            status, items, version = self.lists.pop(0)
            return web.json_response({"metadata": {"resourceVersion": version}, "items": items, "message": "no"}, status=status)
        if not self.streams:
            await asyncio.sleep(3600)
        response = web.StreamResponse()
        await response.prepare(request)
        for line in self.streams.pop(0):
            await response.write(line)
        return response


def event(kind, body):
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


EXPIRED = event("ERROR", {"kind": "Status", "code": 410, "message": "too old"})


async def asks_of(server, number):
    """What is asked for, up to a number of requests, and what is known then."""
    app, pods = web.Application(), Shelf[Pod]()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app) as running:
        configuration = official.Configuration()
        configuration.host = str(running.make_url("")).rstrip("/")
        api = client.Client(configuration, lambda *_: None)
        _, follow = watch.both(api, (), Shelf[Job](), pods, lambda *_: None)
        task = asyncio.create_task(follow.run())
        async with asyncio.timeout(20):
            while len(server.asked) < number:
                await asyncio.sleep(0.01)
        task.cancel()
        await api.close()
    return server.asked, pods


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(watch, "RECONNECT_SECONDS", 0.01)
    monkeypatch.setattr(watch, "REFUSED_SECONDS", 0.01)


async def test_a_stream_that_ends_is_followed_by_one_that_starts_where_it_ended():
    whole = event("ADDED", pod(uid="b", version=7))
    streams = [[whole[:20], whole[20:], event("BOOKMARK", {"metadata": {"resourceVersion": "8"}}), b'{"type": "ADDED", "obj']]
    asked, pods = await asks_of(Server([(200, [pod(uid="a", version=3)], "5")], streams), 3)
    assert asked == ["list", "5", "8"]
    assert {each.uid for each in pods[KEY]} == {"a", "b"}


async def test_a_watch_that_has_expired_is_followed_by_a_complete_list():
    lists = [(200, [pod(uid="a"), pod(uid="b")], "5"), (200, [pod(uid="b")], "9")]
    asked, pods = await asks_of(Server(lists, [[EXPIRED]]), 4)
    assert asked == ["list", "5", "list", "9"]
    assert {each.uid for each in pods[KEY]} == {"b"}


async def test_the_list_of_one_namespace_forgets_nothing_of_another(api, fake):
    pods, elsewhere = Shelf[Pod](), pod(uid="b", version=2)
    elsewhere["metadata"]["namespace"] = "clinic"
    for namespace, body in (("lab", pod(uid="a")), ("clinic", elsewhere)):
        fake.answers["GET", cluster.path("Pod", namespace)] = 200, {"metadata": {"resourceVersion": "5"}, "items": [body]}
    for each in watch.both(api, ("lab", "clinic"), Shelf[Job](), pods, lambda *_: None):
        if each.kind == "Pod":
            await each._list()
    assert {child.uid for children in pods.values() for child in children} == {"a", "b"}


async def test_what_is_deleted_is_forgotten():
    _, pods = await asks_of(Server([(200, [pod()], "5")], [[event("DELETED", pod(version=6))]]), 3)
    assert not pods


async def test_a_list_that_is_refused_is_asked_for_again():
    asked, pods = await asks_of(Server([(403, [], "0"), (200, [pod()], "5")], []), 3)
    assert asked == ["list", "list", "5"]
    assert pods


async def test_one_object_that_cannot_be_read_does_not_stop_the_others(caplog):
    bad = pod(uid="bad") | {"status": {"containerStatuses": "none"}}
    _, pods = await asks_of(Server([(200, [bad, pod(uid="good")], "5")], []), 2)
    assert {each.uid for each in pods[KEY]} == {"good"}
    assert "a bug in the operator" in caplog.text
