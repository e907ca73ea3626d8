"""Speculation: a second attempt, its *twin*, beside an attempt that takes far longer than others of its label.

* **At most two attempts of a task at once**, and one pair for each attempt that the task is charged with.
* **The first that ends by itself wins**, with a value or an exception.  The other is killed, and is charged to nobody;
  the task goes on, or settles, when that one is dead, so nothing of it runs any more when its result is there.
* **An attempt that is ended (it dies, runs into a limit, is evicted) leaves the task to the other one**, uncharged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.core.lane_orders import LaneOrders
from resilient_exec.core.messages import ResultsDiffer
from resilient_exec.core.states import Record, State, Twins
from resilient_exec.core.stragglers import Peers
from resilient_exec.model.packed import is_same_pickle
from resilient_exec.model.task import NotSent, Outrun, Raised, Returned

if TYPE_CHECKING:
    from resilient_exec.model.task import Outcome, Task

__all__ = ["Speculation"]

_MOST_LABELS = 1000  # whoever gives each task a label of its own must not fill the memory with what is learned of them


class Speculation(LaneOrders):
    """Finds attempts that take too long, makes their twins, and decides what the two come to."""

    def _peers_of(self, task: Task) -> Peers:
        peers = self._peers.get(task.label)
        if peers is None:
            if len(self._peers) >= _MOST_LABELS:
                unused = next((label for label, one in self._peers.items() if not one.running), None)
                if unused is not None:
                    del self._peers[unused]
            peers = self._peers[task.label] = Peers(self.limits)
        return peers

    # -- finding them --------------------------------------------------------------------------------------------------

    def _watch(self, record: Record) -> None:
        """It has begun; unless it has had its twin, it may take too long."""
        if record.twins is None or record.twins.is_over:
            peers = self._peers_of(record.task)
            peers.running[record.task.number] = record
            self._await_straggler(peers)

    def _unwatch(self, record: Record, peers: Peers) -> None:
        number = record.task.number
        for watched in (peers.running, self._late):
            if watched.get(number) is record:
                del watched[number]

    def _learn(self, task: Task, took: float) -> None:
        """An attempt of that task has returned after so many seconds."""
        peers = self._peers_of(task)
        before = peers.usual()
        peers.learn(took)
        if peers.usual() != before:
            self._backlog.rank_again(task.label)
        self._await_straggler(peers)

    def _await_straggler(self, peers: Peers) -> None:
        longest = peers.longest() if peers.running else None
        if longest is None:
            return
        first = next(iter(peers.running.values()))
        due = first.begun_at + first.pardon + longest
        if not peers.timer or due < peers.due:
            peers.due = due
            self._timers.set(peers, due)

    def _stragglers_due(self, peers: Peers) -> None:
        longest = peers.longest()
        while peers.running and longest is not None:
            number, record = next(iter(peers.running.items()))
            if self._now < record.begun_at + record.pardon + longest:
                break
            del peers.running[number]
            self._late[number] = record
        self._await_straggler(peers)

    # -- two at once ---------------------------------------------------------------------------------------------------

    def _twin_of(self, record: Record) -> Record:
        """A record of another attempt of the task beside this one, to be sent at once."""
        longest = self._peers_of(record.task).longest()
        self._tell("speculated", record, {"ran": self._now - record.begun_at, "limit": longest})
        twins = record.twins = record.twins or Twins()
        twin = Record(record.task, record.order)
        twin.begun, twin.first_begun_at = record.begun, record.first_begun_at
        twin.failures, twin.evictions, twin.rows, twin.twins = record.failures, record.evictions, record.story, twins
        twins.live = [record, twin]
        twins.begun, twins.is_over = record.begun, False
        self._pairs += 1
        self._move(twin, State.QUEUED)
        return twin

    def _decided(self, record: Record, outcome: Outcome) -> Outcome | None:
        """What the task comes to, now that this attempt is over; ``None``: its twin is still to end."""
        self._unwatch(record, self._peers_of(record.task))
        if type(outcome) is Returned:
            self._learn(record.task, self._now - record.begun_at)
        twins = record.twins
        if twins is None:
            return outcome
        twins.begun = max(twins.begun, record.begun)
        other = twins.other(record)
        if other is not None:
            self._leave_to(other, record)
            if type(outcome) in (Returned, Raised, NotSent):
                twins.winner, twins.outcome = record.attempt, outcome
                if other.state is not State.DOOMED:
                    why = f"attempt {record.attempt} has ended first"
                    self._doom(other, Outrun(why), why)
            else:
                twins.uncharged += record.has_begun
            return None
        if twins.outcome is not None:
            self._compare(record, outcome, twins)
            twins.uncharged += record.has_begun
            outcome, record.attempt = twins.outcome, twins.winner
            twins.outcome, twins.winner = None, 0
        record.begun, twins.is_over = twins.begun, True
        return outcome

    def _leave_to(self, other: Record, record: Record) -> None:
        """From here on the other one stands for the task."""
        task = other.task
        record.twins.live.remove(record)  # type: ignore[union-attr]
        self._pairs -= 1
        self._move(record, State.SETTLED)
        record.timer = 0
        self._records[task.number] = other
        if task.group is not None:
            task.group.parts[task.number] = other

    def _is_left_to_twin(self, record: Record) -> bool:
        """Whether an attempt that has not begun, and comes back, is not to be sent again: it has a twin."""
        other = record.twins.other(record) if record.twins is not None else None
        if other is None:
            return False
        self._leave_to(other, record)
        return True

    def _compare(self, record: Record, outcome: Outcome, twins: Twins) -> None:
        """Tell, where the one that was to be killed has returned before that, whether its result is another one."""
        first = twins.outcome
        if type(outcome) is not Returned or type(first) is not Returned or is_same_pickle(outcome.value, first.value):
            return
        self._tell("differed", record, {"kept": twins.winner})
        self._out.append(ResultsDiffer(record.task, twins.winner, record.attempt))
