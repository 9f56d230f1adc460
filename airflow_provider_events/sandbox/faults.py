"""Faults: what networks, proxies and vendors do to clients on bad days, on demand."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from email.utils import formatdate
from fnmatch import fnmatchcase
from random import Random
from typing import Any, Literal, get_args

from airflow_provider_events.sandbox.api import Answer, Call, VendorApi
from airflow_provider_events.sandbox.wire import Wire

FaultKind = Literal[
    "status",
    "delay",
    "dribble",
    "cut",
    "cut_answer",
    "lost",
    "html",
    "empty",
    "truncated",
    "wrong_type",
    "huge",
    "failure",
]
KINDS: tuple[str, ...] = get_args(FaultKind)

_ACCEPTS = frozenset({"delay", "dribble", "cut_answer", "lost", "truncated"})
_STATUS = {"status": 503, "html": 502}
_HTML = b"<!DOCTYPE html><html><head><title>%d</title></head><body><h1>Sandbox gateway: %d</h1></body></html>"
_CHUNK_BYTES = 65_536


@dataclass(slots=True)
class Fault:
    """A rule: which requests go wrong, and how.

    Kinds (those marked + accept the events first, the others don't; `accepted` overrides it):

    - `status`: answer `status` (default 503) with `body` (default: the vendor's own error envelope)
    - `delay` +: the true answer, `seconds` late
    - `dribble` +: the true answer, one byte every `seconds`
    - `cut`: the connection is closed with no answer; `lost` +: the same, after the events were accepted
    - `cut_answer` +: headers and half of the body, then the connection is closed
    - `html`: a web page with `status` (default 502)
    - `empty`: `status` (default 200), no body
    - `truncated` +: the first half of the true body, as if it were all
    - `wrong_type`: `status` (default 200), a JSON list of a string
    - `huge`: `status` (default 200), a JSON string of `size` bytes (default 50 MB)
    - `failure`: status 200, with a body that says failure in the vendor's way

    Which requests: `vendor`, `method`, `path` (a shell pattern such as `*/bulk-events`); `None`: any of them.
    The first `after` matches pass; of those that follow every `every`-th is taken, with `probability`
    (reproducible by `seed`), at most `times` (`None`: for ever). `matched` and `fired` count.

    `retry_after`: the header, in seconds or any text; `retry_after_date`: those seconds as an HTTP date.
    """

    kind: FaultKind
    vendor: str | None = None
    method: str | None = None
    path: str | None = None
    after: int = 0
    times: int | None = None
    every: int = 1
    probability: float = 1.0
    seed: int = 0
    accepted: bool | None = None
    status: int | None = None
    body: Any = None
    retry_after: int | str | None = None
    retry_after_date: bool = False
    seconds: float = 1.0
    size: int = 50_000_000
    matched: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)
    _random: Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse an unknown kind and a meaningless `every`."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault kind {self.kind!r}: one of {', '.join(KINDS)}")
        if self.every < 1:
            raise ValueError("every must be at least 1")
        self._random = Random(self.seed)

    @property
    def accepts(self) -> bool:
        """Whether the vendor handles the request before things go wrong."""
        return self.kind in _ACCEPTS if self.accepted is None else self.accepted

    def fires(self, vendor: str, call: Call) -> bool:
        """Count a request if it matches, and say whether it is this one that goes wrong."""
        if self.vendor not in (None, vendor) or self.method not in (None, call.method):
            return False
        if self.path is not None and not fnmatchcase(call.path, self.path):
            return False
        self.matched += 1
        turn = self.matched - self.after
        if turn < 1 or turn % self.every or (self.times is not None and self.fired >= self.times):
            return False
        if self.probability < 1 and self._random.random() >= self.probability:
            return False
        self.fired += 1
        return True

    def distort(self, api: VendorApi, answer: Answer, now: float) -> Answer:
        """What the client is to see; `answer` is the true answer, or a 503 if the request wasn't handled."""
        status = self.status or _STATUS.get(self.kind, 200)
        distorted = self._distorted(api, answer, status)
        if self.retry_after is not None:
            late = isinstance(self.retry_after, int) and self.retry_after_date
            distorted.headers["retry-after"] = (
                formatdate(now + int(self.retry_after), usegmt=True) if late else str(self.retry_after)
            )
        return distorted

    def _distorted(self, api: VendorApi, answer: Answer, status: int) -> Answer:
        match self.kind:
            case "status" if self.body is None:
                return api.refusal(status, "Injected by the sandbox")
            case "status":
                return Answer.json(status, self.body)
            case "failure":
                return api.refusal(200, "Injected by the sandbox")
            case "html":
                return Answer(status, _HTML % (status, status), media_type="text/html; charset=utf-8")
            case "empty":
                return Answer(status, b"")
            case "truncated":
                half = answer.content[: len(answer.content) // 2]
                return Answer(answer.status, half, headers=answer.headers)
            case "wrong_type":
                return Answer.json(status, ["ok"])
            case "huge":
                return Answer(status, b'"' + b"x" * (self.size - 2) + b'"')
            case _:
                return answer

    async def deliver(self, answer: Answer, wire: Wire) -> None:
        """Send the answer the way the fault wants it, or not at all."""
        match self.kind:
            case "cut" | "lost":
                await wire.cut()
            case "cut_answer":
                await wire.start(answer)
                await wire.write(answer.content[: len(answer.content) // 2])
                await wire.cut()
            case "delay":
                await wire.pause(self.seconds)
                await wire.send(answer)
            case "dribble":
                await wire.start(answer)
                for position in range(len(answer.content)):
                    if not await wire.pause(self.seconds):
                        return
                    await wire.write(answer.content[position : position + 1])
                await wire.finish()
            case "huge":
                await wire.start(answer)
                for position in range(0, len(answer.content), _CHUNK_BYTES):
                    await wire.write(answer.content[position : position + _CHUNK_BYTES])
                await wire.finish()
            case _:
                await wire.send(answer)

    def as_dict(self) -> dict[str, Any]:
        """The rule with its counters, without what was left at its default."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        defaults = {f.name: f.default for f in fields(self) if f.default is not MISSING}
        changed = {name: v for name, v in options.items() if name not in defaults or v != defaults[name]}
        return {**changed, "matched": self.matched, "fired": self.fired}


class FaultBook:
    """The rules in force."""

    def __init__(self) -> None:
        """Begin with none."""
        self.rules: list[Fault] = []

    def pick(self, vendor: str, call: Call) -> Fault | None:
        """The first rule that takes this request."""
        return next((rule for rule in self.rules if rule.fires(vendor, call)), None)
