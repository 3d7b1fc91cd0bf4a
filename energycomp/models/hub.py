"""Repositories of the hub: downloaded, and written to. Each failure is one error of this library, in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from energycomp.errors import HubError, InputError, NotFoundError, first_line

CARD = "README.md"
LOG_IN = "log in with `hf auth login`, or pass token="
NOT_FOUND = {  # by the errors of the client, the first of these that an error is
    "GatedRepoError": "the authors give access on request: ask for it on its page",
    "RevisionNotFoundError": "no such revision",
    "RepositoryNotFoundError": "no repository that you may read",
    "OfflineModeIsEnabled": "it was not asked, and the cache does not have it",
    "LocalEntryNotFoundError": "it was not reached, and the cache does not have it",
    "HFValidationError": "no name that it has",
}
NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id.

    >>> is_hub_id("owner/name"), is_hub_id("../name")
    (True, False)
    """
    return re.fullmatch(NAME, name, re.ASCII) is not None


def is_folder(name: str | Path) -> bool:
    """Whether there is a folder of that name, however long the name is.

    >>> is_folder("."), is_folder("x" * 100_000)
    (True, False)
    """
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long a name, or one with a zero byte
        return False


@attrs.frozen
class HubSource:
    """A repository of the hub, and how it is read.

    Args:
        repo: its hub id, "owner/name".
        revision: a branch, a tag or a commit; the main branch when left out.
        token: of a private repository; that of `hf auth login` when left out, and False for none.
        local_files_only: reads the cache alone, without the network.
        cache_dir: folder of the cache; that of the hub's client when left out.
        subfolder: of the repository, where the model is in one.

    >>> source = HubSource("owner/name", revision="v1", token="hf_secret")
    >>> source
    HubSource(repo='owner/name', revision='v1', local_files_only=False, cache_dir=None, subfolder='')
    """

    repo: str
    revision: str | None = None
    token: str | bool | None = attrs.field(default=None, repr=False)
    local_files_only: bool = False
    cache_dir: str | Path | None = None
    subfolder: str = ""

    @classmethod
    def parse(cls, name: str, revision: str | None = None, **options: Any) -> HubSource | None:
        """The source of "owner/name" or "owner/name@revision"; None for a text of another form.

        >>> HubSource.parse("owner/name@v1").revision
        'v1'
        """
        repo, _, given = name.partition("@")
        if not is_hub_id(repo) or (not given and "@" in name):
            return None
        if given and revision not in (None, given):
            raise InputError(f"got {name} and the revision {revision!r}; expected one of them; leave the other out")
        return cls(repo, given or revision, **options)

    def options(self) -> dict[str, Any]:
        """What differs from the defaults, as keywords of huggingface_hub."""
        given = attrs.asdict(self, filter=lambda field, value: value != field.default)
        return {name: value for name, value in given.items() if name not in ("repo", "subfolder")}

    def download(self, patterns: Sequence[str], expected: str) -> Path:
        """The folder of the files that match the patterns, in the cache; what is there already is not fetched again.

        Raises:
            NotFoundError: no such repository or revision, or, without a network, none in the cache; `expected` says
                what was expected.
            HubError: a token that is refused, or a connection that broke off.
        """
        from huggingface_hub import snapshot_download

        try:
            inside = [f"{self.subfolder}/{pattern}" if self.subfolder else pattern for pattern in patterns]
            return Path(snapshot_download(self.repo, allow_patterns=inside, **self.options())) / self.subfolder
        except Exception as error:  # the client raises errors of its own, of its HTTP library, and of the system
            name = self.repo if self.revision is None else f"{self.repo}@{self.revision}"
            if (reason := _not_found(error)) is None:
                raise HubError(
                    f"got no download of {name!r} ({_short(error)}); what has arrived is kept, so run the same command "
                    f"again; if the hub refuses the token, {LOG_IN}"
                ) from error
            raise NotFoundError(
                f"got {name!r}, which is no folder and could not be read from the hub ({reason}); expected {expected}; "
                f"if it is not public, {LOG_IN}"
            ) from error


def upload(folder: Path, repo: str, *, private: bool | None, token: str | None, message: str | None,
           revision: str | None) -> str:  # fmt: skip
    """What `Model.push_to_hub` does with the files of a folder."""
    from huggingface_hub import HfApi

    if not is_hub_id(repo):
        raise InputError(f"got the repository {repo!r}; expected a hub id: owner/name")
    api = HfApi(token=token, library_name="energycomp")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        kept = [CARD] if api.file_exists(repo, CARD, revision=revision) else None
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message or "Upload model", revision=revision,
            ignore_patterns=kept,
        )  # fmt: skip
    except Exception as error:
        raise HubError(
            f"the upload to {repo!r} failed ({_short(error)}); the repository is as it was, so run the same command "
            f"again; if the hub refuses the token, {LOG_IN}"
        ) from error
    return str(done.commit_url)


def _not_found(error: Exception) -> str | None:
    """Why there is nothing to download; None for a failure of the download itself."""
    kinds = {kind.__name__ for each in (error, error.__cause__) if each is not None for kind in type(each).__mro__}
    return next((reason for kind, reason in NOT_FOUND.items() if kind in kinds), None)


def _short(error: Exception) -> str:
    """The status and the first line of a message of the client, without the advice that follows."""
    return f"{type(error).__name__}: {first_line(error)[:200].rstrip('.:; ')}"
