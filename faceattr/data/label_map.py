"""How labels are to be understood: other names for classes, numbers, and votes beside a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from faceattr.data.csv_manifest import NO_CLASS, NO_FACE
from faceattr.data.manifest import Example, Label, Source, TasksByName, Votes, label_names
from faceattr.data.public_datasets import FERPLUS_FILE
from faceattr.tasks import ORDERS, Task

EVERY_TASK = ""


@dataclass(frozen=True)
class LabelMap:
    """How labels are to be understood.

    Args:
        renamed: By task (``""`` for every task), the class that a name in the data stands for.
            Several names may stand for one class; an empty class leaves the label unknown.
        orders: By task, the name of the order that its numbers follow, see
            `faceattr.tasks.ORDERS`.
        votes: By task, how much what several people said counts beside the label: 1 alone, 0.5
            as much as the label, see `count_votes`. Without it the label counts alone.
        strict: Refuse names and votes that occur nowhere.
    """

    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    orders: Mapping[str, str] = field(default_factory=dict)
    votes: Mapping[str, float] = field(default_factory=dict)
    strict: bool = True

    def __post_init__(self) -> None:
        for task, name in self.orders.items():
            if name not in ORDERS.get(task, {}):
                known = "; ".join(f"{of}: {', '.join(orders)}" for of, orders in ORDERS.items())
                raise ValueError(
                    f"There is no order {name!r} of task {task!r}. The known ones are: {known}. "
                    f"Numbers of another order are named one by one, as in --map {task}:0=NAME."
                )
        if not all(0 <= share <= 1 for share in self.votes.values()):
            raise ValueError(f"Votes count from 0 to 1. Received: {dict(self.votes)}")

    def renaming_of(self, task: str) -> Mapping[str, str]:
        """The classes that names in the data stand for."""
        return {**self.renamed.get(EVERY_TASK, {}), **self.renamed.get(task, {})}

    def named(self, task: str, name: str) -> str:
        """The class that a number stands for, if an order was stated; any other name as it is."""
        number = _number(name)
        if task not in self.orders or number is None:
            return name
        return ORDERS[task][self.orders[task]].name_of(number)

    def renamed_to(self, task: str, name: str) -> str:
        """The class that a name stands for, empty where it stands for none."""
        return self.renaming_of(task).get(name, name)


LABELS_AS_WRITTEN = LabelMap()


def normalize_labels(
    sources: Sequence[Source], label_map: LabelMap, known: TasksByName
) -> tuple[list[Source], tuple[str, ...]]:
    """Give every label the name of its class; also a note for each name that was replaced."""
    numbered = [_mapped(source, label_map.named) for source in sources]
    met = _count_names(numbered, label_map)
    if label_map.strict:
        _refuse_unmet(met, label_map)
        _refuse_unvoted(sources, label_map)
    _refuse_numbers(met, label_map, known)
    named = [_mapped(source, label_map.renamed_to) for source in numbered]
    if label_map.votes:
        named = [count_votes(source, label_map.votes, known) for source in named]
    named = [_labelled(source) for source in named]
    examples = [example for source in named for example in source.examples]
    voted = Counter(task for example in examples for task in example.votes)
    votes = label_map.votes.items()
    counts = (f"{task}: votes count {of:.0%} on {voted[task]:,} faces" for task, of in votes)
    return named, (*_notes(met, label_map), *counts)


def _mapped(source: Source, class_of: Callable[[str, str], str]) -> Source:
    """The source with every name of a class replaced."""
    examples = []
    for example in source.examples:
        try:
            labels = {task: _label(task, of, class_of) for task, of in example.labels.items()}
            votes = {task: _votes(task, of, class_of) for task, of in example.votes.items()}
        except ValueError as error:
            raise ValueError(f"{example.origin or example.path}: {error}") from None
        examples.append(replace(example, labels=labels, votes=votes))
    return replace(source, examples=tuple(examples))


def _labelled(source: Source) -> Source:
    """The source without the rows that no task can learn from."""
    examples, left_out = [], Counter(source.left_out)
    for example in source.examples:
        if any(example.labels.values()):
            examples.append(example)
        else:
            had_one = bool(example.labels)
            left_out["label that stands for no class" if had_one else "no label for any task"] += 1
    return replace(source, examples=tuple(examples), left_out=left_out)


def _label(task: str, label: Label, class_of: Callable[[str, str], str]) -> Label:
    if isinstance(label, str):
        return class_of(task, label.strip()) if label else ""
    return _votes(task, label, class_of)


def _votes(task: str, votes: Votes, class_of: Callable[[str, str], str]) -> Votes:
    mapped: Counter[str] = Counter()
    for name, weight in votes.items():
        mapped[class_of(task, name.strip())] += weight  # type: ignore[assignment]
    return {name: weight for name, weight in mapped.items() if name}


def _count_names(sources: Iterable[Source], label_map: LabelMap) -> Counter[tuple[str, str]]:
    """How often a name of a class occurs, by task and name; votes where they are asked for."""
    met: Counter[tuple[str, str]] = Counter()
    for example in (example for source in sources for example in source.examples):
        for task, label in example.labels.items():
            met.update((task, name) for name in label_names(label))
        for task in example.votes.keys() & label_map.votes.keys():
            met.update((task, name) for name in example.votes[task])
    return met


def _number(name: str) -> int | None:
    """The whole number that a label is, also where a table made 3.0 of it."""
    try:
        number = float(name)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _refuse_numbers(
    met: Iterable[tuple[str, str]], label_map: LabelMap, known: TasksByName
) -> None:
    for task, name in met:
        if task not in ORDERS or name in label_map.renaming_of(task) or _number(name) is None:
            continue
        if task in known and name in known[task].classes:
            continue
        orders = "; ".join(f"{title}: {order}" for title, order in ORDERS[task].items())
        raise ValueError(
            f"The label {name!r} of task {task!r} is a number, and data sets number their classes "
            f"differently ({orders}): say which with --order {task}=NAME, or name the "
            f"numbers yourself with --map {task}:{name}=CLASS."
        )


def _refuse_unmet(met: Iterable[tuple[str, str]], label_map: LabelMap) -> None:
    for task, renaming in label_map.renamed.items():
        there = {name for of, name in met if task in (EVERY_TASK, of)}
        if strangers := sorted(set(renaming) - there):
            raise ValueError(
                f"There is no label {', '.join(strangers)}{' of task ' if task else ''}{task} to "
                f"be renamed. The labels are: {', '.join(sorted(there)) or 'none'}."
            )


def _refuse_unvoted(sources: Sequence[Source], label_map: LabelMap) -> None:
    voted = {task for source in sources for example in source.examples for task in example.votes}
    if unvoted := sorted(set(label_map.votes) - voted):
        raise ValueError(
            f"There are no votes on {', '.join(unvoted)} beside a label. Expected columns called "
            f"{unvoted[0]}:CLASS; for expression also FER+'s, in {FERPLUS_FILE} beside fer2013.csv "
            "or as columns votes_neutral, votes_happiness and so on."
        )


def _notes(met: Mapping[tuple[str, str], int], label_map: LabelMap) -> Iterable[str]:
    """What became of the names that were replaced, a line per class."""
    stood_for: dict[tuple[str, str], list[str]] = {}
    for task, name in sorted(met):
        stood_for.setdefault((task, label_map.renamed_to(task, name)), []).append(name)
    for (task, name), names in stood_for.items():
        if names != [name]:
            found = " and ".join(f"{one} ({met[task, one]:,})" for one in names)
            yield f"{task}: {found} count{'s' * (len(names) == 1)} as {name or 'unknown'}"


def count_votes(source: Source, shares: Mapping[str, float], known: TasksByName) -> Source:
    """Let votes count beside labels, by task in these shares: 1 alone, 0.5 as much as the label.

    Votes for no class of a known task do not count. Faces that half of the people or more took
    for none are left out; those without a countable vote keep their label.
    """
    examples, left_out = [], Counter(source.left_out)
    for example in source.examples:
        votes = (example.votes.get(task, {}) for task in shares)
        if any(of and 2 * of.get(NO_FACE, 0) >= sum(of.values()) for of in votes):
            left_out["no face, by its votes"] += 1
            continue
        mixed = {task: _mixed(example, task, share, known) for task, share in shares.items()}
        labels = {**example.labels, **{task: label for task, label in mixed.items() if label}}
        examples.append(replace(example, labels=labels))
    return replace(source, examples=tuple(examples), left_out=left_out)


def _mixed(example: Example, task: str, share: float, known: TasksByName) -> Votes:
    """Shares of the label's class and of the votes', which sum to 1; empty without votes."""
    votes = _countable(example.votes.get(task, {}), known.get(task))
    label = example.labels.get(task)
    if not votes or not isinstance(label, str | None):
        return {}
    if not label:
        return votes if share else {}
    whole = sum(votes.values())
    mixed = {name: share * count / whole for name, count in votes.items()}
    for name in _countable({label: 1.0}, known.get(task)):
        mixed[name] = mixed.get(name, 0) + 1 - share
    return {name: part for name, part in mixed.items() if part}


def _countable(votes: Votes, task: Task | None) -> Votes:
    """The votes that are for a class, by the class's own name."""
    if task is None:
        return {name: count for name, count in votes.items() if name not in NO_CLASS}
    counted: dict[str, float] = {}
    for name in filter(task.__contains__, votes):
        own = task.class_of(name)
        counted[own] = counted.get(own, 0) + votes[name]
    return counted
