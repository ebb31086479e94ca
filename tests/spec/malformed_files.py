"""Files that are no study at all, and overrides that set nothing."""

# one case a line

import itertools

LAUGHS = "a: &a [x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in itertools.pairwise("abcdefghi")
)

TEXTS: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "study.yaml", ""),
    "only a comment": (b"# nothing\n", "study.yaml", ""),
    "null": (b"null\n", "study.yaml", ""),
    "a list": (b"- name: x\n", "study.yaml", ""),
    "a word": (b"hello\n", "study.yaml", ""),
    "not YAML": (b"name: [1, 2\nquestion: x\n", "study.yaml", ""),
    "two colons": (b"name: a: b\n", "study.yaml", ""),
    "a tab": (b"budget:\n\tsteps: 1\n", "study.yaml", ""),
    "an open quote": (b"name: 'x\n", "study.yaml", ""),
    "two documents": (b"name: x\n---\nname: y\n", "study.yaml", ""),
    "not UTF-8": ("name: é".encode("latin-1"), "study.yaml", ""),
    "UTF-16": ("name: x".encode("utf-16"), "study.yaml", ""),
    "NUL": (b"name: x\0\n", "study.yaml", ""),
    "a control character": (b"name: \x07\n", "study.yaml", ""),
    "binary": (bytes(range(128, 256)), "study.yaml", ""),
    "too large": (b"# " + b"x" * 300_000, "study.yaml", ""),
    "an anchor": (b"name: &x lr\n", "name", ""),
    "an alias": (b"name: *x\n", "name", ""),
    "billion laughs": (LAUGHS.encode(), "a", ""),
    "an endless list": (b"&x [*x]\n", "study.yaml", ""),
    "a Python tag": (b"name: !!python/object/apply:os.system [ls]\n", "name", ""),
    "a set": (b"scientific: !!set {a, b}\n", "scientific", ""),
    "a deep list": (b"name: " + b"[" * 500, "name.0.0", ""),
    "an abyss": (b"[" * 200_000, "", ""),
    "a deep mapping": (b"".join(b" " * n + b"a:\n" for n in range(60)), "a.a.a", ""),
    "a key twice": (b"name: x\nbudget: {steps: 1, steps: 2}\n", "budget.steps", ""),
    "a section twice": (b"fixed: {}\nfixed: {}\n", "fixed", ""),
    "a number as key": (b"fixed: {1: 2}\n", "fixed", ""),
    "a list as key": (b"fixed: {[1]: 2}\n", "fixed", ""),
    "a merge": (b"fixed:\n  <<: {peak_lr: 1}\n", "fixed.\"<<\"", "extra_forbidden"),
    "a broken key": (b"\"a\\nb\": 1\n", "\"a\\nb\"", "extra_forbidden"),
}  # fmt: skip
