"""Images on the hosts: lists put together, names given and taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.hosts import LIST_RETRIES, Answer, ask_all, needed
from migrate.coordinator.store import Store
from migrate.errors import MigrateError, NotFound, WrongState
from protos import agent_pb2, types_pb2

T = TypeVar("T")
NO_IMAGE = "image.not_found"


def list_all(store: Store, pool: AgentPool) -> list[types_pb2.Image]:
    """Of every host that answers, by host."""
    hosts = [host.name for host in store.hosts()]
    request = agent_pb2.ListImagesRequest()
    images: list[types_pb2.Image] = []
    for answer in ask_all(pool, hosts, lambda a: a.call("Images", "List", request, retries=LIST_RETRIES)):
        for image in answer.value.images if answer.value is not None else ():
            image.host = answer.host
            images.append(image)
    return images


def inspect(store: Store, pool: AgentPool, request: agent_pb2.InspectImageRequest) -> list[types_pb2.Image]:
    """From each host that has the image, with its config document. NotFound if none has."""
    question = agent_pb2.InspectImageRequest(name=request.name)
    return _each_having(
        store,
        pool,
        request.name,
        request.host,
        lambda agent: _of_host(agent, agent.call("Images", "Inspect", question)),
    )


def tag(store: Store, pool: AgentPool, request: agent_pb2.TagImageRequest) -> list[types_pb2.Image]:
    """On each host that has the image. NotFound if none has."""
    question = agent_pb2.TagImageRequest(name=request.name, tag=request.tag)
    return _each_having(
        store, pool, request.name, request.host, lambda agent: _of_host(agent, agent.call("Images", "Tag", question))
    )


def prune(store: Store, pool: AgentPool, request: agent_pb2.PruneImagesRequest) -> list[agent_pb2.PruneImagesResponse]:
    """On the host that the request names, or on every host that answers; raises the first error if none does."""
    hosts = [store.host(request.host).name] if request.host else [one.name for one in store.hosts()]
    answers = ask_all(pool, hosts, lambda agent: agent.call("Images", "Prune", request))
    done: list[agent_pb2.PruneImagesResponse] = []
    for answer in answers:
        if answer.value is not None:
            answer.value.host = answer.host
            done.append(answer.value)
    if not done:
        _raise_first(answers, touched=False)
    return done


def remove(store: Store, pool: AgentPool, name: str, *, host: str, force: bool) -> agent_pb2.RemoveImageResponse:
    """From `host`, or from every host that has it; says what went with it. NotFound if nobody has it.

    Without `force` no host is touched if a container on one of them uses the image.
    """
    request = agent_pb2.RemoveImageRequest(name=name, force=force)
    hosts = _hosts(store, host)
    if not force:
        _refuse_if_used(pool, hosts, name)
    answers = ask_all(pool, hosts, lambda agent: agent.call("Images", "Remove", request))
    removed = [answer.value for answer in answers if answer.value is not None]
    _raise_first(answers, touched=bool(removed))
    if not removed:
        raise _nobody_has(name, hosts)
    return agent_pb2.RemoveImageResponse(
        removed=dict.fromkeys(layer for reply in removed for layer in reply.removed),
        untagged=dict.fromkeys(one for reply in removed for one in reply.untagged),
        deleted=dict.fromkeys(one for reply in removed for one in reply.deleted),
    )


def _refuse_if_used(pool: AgentPool, hosts: list[str], name: str) -> None:
    """Where removing `name` would take the last name of an image that containers use. The agents look again."""
    question = agent_pb2.InspectImageRequest(name=name)
    answers = ask_all(pool, hosts, lambda agent: agent.call("Images", "Inspect", question, retries=LIST_RETRIES))
    for answer in answers:
        image = answer.value
        if image is None or not image.used_by:
            continue
        everything = pool.agent(answer.host).call("Images", "List", agent_pb2.ListImagesRequest()).images
        names = {one.name for one in everything if one.digest == image.digest}
        by_name = name.partition("@")[0] in (image.name, image.name.rpartition(":")[0])
        if len(names) < 2 or not by_name:
            raise WrongState(
                f"{answer.host}: image {name} is used by {', '.join(image.used_by)}",
                hint="remove the containers first, or use --force: they run on",
            )


def _each_having(store: Store, pool: AgentPool, name: str, host: str, question: Callable[[Agent], T]) -> list[T]:
    """The answers of the hosts that have the image. Raises what else goes wrong on any of them."""
    hosts = _hosts(store, host)
    answers = ask_all(pool, hosts, question)
    found = [answer.value for answer in answers if answer.value is not None]
    if not found:
        _raise_first(answers, touched=False)
        raise _nobody_has(name, hosts)
    return found


def _of_host(agent: Agent, image: types_pb2.Image) -> types_pb2.Image:
    image.host = agent.name
    return image


def _hosts(store: Store, host: str) -> list[str]:
    return [store.host(host).name] if host else needed(store)


def _raise_first(answers: list[Answer[T]], *, touched: bool) -> None:
    """The first error that is not just "not here", naming its host."""
    for answer in answers:
        error = answer.error
        if error is not None and not isinstance(error, NotFound):
            raise type(error)(
                error.message if answer.host in error.message else f"{answer.host}: {error.message}",
                hint=error.hint,
                detail=error.detail,
                code=error.code,
                touched="something" if touched else error.touched,
            ) from error


def _nobody_has(name: str, hosts: list[str]) -> MigrateError:
    return NotFound(f"no image {name!r} on {', '.join(hosts)}", hint="migrate images", code=NO_IMAGE)
