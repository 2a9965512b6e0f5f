"""The scripts as a user calls them, with programs that record what they are asked for."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from tests import quick_xla

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"

# Records its words, and as git packs one file; writes down the names of the files which it is given
# to send; gives the next of its answers to a question, the last of them for ever.
# Python does not look for site-packages, which takes longer than the program.
FAKE = """#!{python} -IS
import json, os, sys
place = {place!r} + "/"
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
with open(place + "calls", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
for word in words:
    if word.startswith("--output=") and words[0] == "git":
        import tarfile
        with tarfile.open(word.removeprefix("--output="), "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("committed"))
    elif word.startswith("--script-dir="):
        with open(place + "sent", "w") as file:
            json.dump(os.listdir(word.removeprefix("--script-dir=")), file)
    elif "scp" in words and os.path.isfile(word):
        import tarfile
        with open(place + "sent", "w") as file:
            json.dump(tarfile.open(word).getnames(), file)
said = " ".join(words)
with open(place + "answers") as file:
    answers = json.load(file)
for part, queue in answers.items():
    if part in said:
        text, code = queue.pop(0) if len(queue) > 1 else queue[0]
        with open(place + "answers", "w") as file:
            json.dump(answers, file)
        print(text, end="\\n" if text else "", file=sys.stderr if code else sys.stdout)
        sys.exit(code)
"""


@dataclass
class Shell:
    """Runs a script of `launch/` and says what it did.

    Attributes:
      place: a folder of its own, which also is the home and the place of temporary files.
      environment: what it finds beside PATH and HOME.
      programs: those that record instead of working.
    """

    place: pathlib.Path
    environment: dict[str, str] = field(default_factory=lambda: {"VRL_POLL_SECONDS": "0"})
    programs: tuple[str, ...] = ()

    def fake(self, *programs, **answers):
        """Put recording programs on PATH; `answers` are lists of (text, exit code) by question."""
        (self.place / "bin").mkdir(exist_ok=True)
        for name in programs:
            path = self.place / "bin" / name
            path.write_text(FAKE.format(python=sys.executable, place=str(self.place)))
            path.chmod(0o755)
        self.programs = programs
        self.answer(answers)

    def answer(self, answers):
        (self.place / "answers").write_text(json.dumps(answers))
        (self.place / "calls").unlink(missing_ok=True)

    def __call__(self, script, *words, code=0, timeout=60):
        path = f"{self.place / 'bin'}:{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"
        process = subprocess.run(
            [str(LAUNCH / script), *map(str, words)],
            env={"PATH": path, "HOME": str(self.place), "TMPDIR": str(self.place)}
            | self.environment,
            cwd=LAUNCH.parent,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert process.returncode == code, process.stdout + process.stderr
        return process.stdout + process.stderr

    def calls(self):
        """Return what the recording programs were asked for, without the look at the work tree.

        Temporary folders have the name that a dry run gives them.
        """
        text = re.sub(r"/vrl_jax\.\w{6}\b", "/vrl_jax.XXXXXX", (self.place / "calls").read_text())
        return [words for words in map(json.loads, text.splitlines()) if "status" not in words]

    def sent(self):
        """Return the names of the files that were sent, after a look that none was left behind."""
        assert not list(self.place.glob("vrl_jax.*"))
        return json.loads((self.place / "sent").read_text())

    def printed(self, script, action, *words):
        """Return the commands of a dry run, split as a shell would split them."""
        dry = self(script, *([action] if action else []), "--dry-run", *words)
        return [shlex.split(line.removesuffix(" &")) for line in dry.splitlines()]

    def does_what_it_printed(self, script, action, *words):
        """Compare a dry run with a real one, by the programs that record; return the calls."""
        printed = self.printed(script, action, *words)
        assert not (self.place / "calls").exists(), "a dry run must execute nothing"
        self(script, *([action] if action else []), *words)
        assert self.calls() == [line for line in printed if line[0] in self.programs]
        return self.calls()


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def inherited(shell):
    """The same with this process's environment, for what really trains."""
    shell.environment = {**os.environ, "XLA_FLAGS": quick_xla.FLAGS}
    return shell
