"""Repositories of the hub: downloaded, and written to. Each failure is one error of this library, in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import attrs

from energycomp.errors import HubError, InputError, NotFoundError, first_line

CARD = "README.md"
LOG_IN = "log in with `hf auth login`, or pass token="
NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id.

    >>> is_hub_id("owner/name"), is_hub_id("../name")
    (True, False)
    """
    return re.fullmatch(NAME, name, re.ASCII) is not None


@attrs.frozen
class HubSource:
    """A repository of the hub, and how it is read.

    Args:
        repo: its hub id, "owner/name".
        revision: a branch, a tag or a commit; the main branch when left out.
        token: of a private repository; that of `hf auth login` when left out, and False for none.
        local_files_only: reads the cache alone, without the network.
        cache_dir: folder of the cache; that of the hub's client when left out.
    """

    repo: str
    revision: str | None = None
    token: str | bool | None = attrs.field(default=None, repr=False)
    local_files_only: bool = False
    cache_dir: str | Path | None = None

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
        given = {field.name: getattr(self, field.name) for field in attrs.fields(HubSource)[1:]}
        return {name: value for name, value in given.items() if value != getattr(_DEFAULTS, name)}

    def download(self, patterns: Sequence[str], expected: str) -> Path:
        """The folder of the files that match the patterns, in the cache; what is there already is not fetched again.

        Args:
            expected: what errors say was expected of a name that is none.

        Raises:
            NotFoundError: no such repository or revision, or, without a network, none in the cache.
            HubError: a token that is refused, or a connection that broke off.
        """
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.repo, allow_patterns=list(patterns), **self.options()))
        except Exception as error:  # the client raises errors of its own, of its HTTP library, and of the system
            self._fail(error, expected)

    def _fail(self, error: Exception, expected: str) -> NoReturn:
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            raise NotFoundError(
                f"got {self.repo!r}, whose authors give access on request; ask for it on the page of the repository, "
                f"then {LOG_IN}"
            ) from error
        if isinstance(error, errors.RepositoryNotFoundError):
            raise NotFoundError(
                f"got {self.repo!r}, which is no folder and no repository of the hub that you may read; expected "
                f"{expected}; for a private repository {LOG_IN}"
            ) from error
        if isinstance(error, errors.RevisionNotFoundError):
            raise NotFoundError(
                f"got the revision {self.revision!r} of {self.repo!r}, which does not have it; expected a branch, a "
                "tag or a commit of the repository"
            ) from error
        if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
            raise HubError(
                f"got a token that the hub refuses for {self.repo!r} ({error.response.status_code}); expected one that "
                f"may read it; {LOG_IN}"
            ) from error
        if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | errors.HFValidationError):
            offline = self.local_files_only or isinstance(error.__cause__ or error, errors.OfflineModeIsEnabled)
            reason = "which was not asked" if offline else f"{type(error).__name__}: {_short(error)}"
            raise NotFoundError(
                f"got {self.repo!r}, which is no folder and could not be read from the hub ({reason}) or its cache; "
                f"expected {expected}"
            ) from error
        raise HubError(
            f"got no complete download of {self.repo!r} ({type(error).__name__}: {_short(error)}); what has arrived is "
            "kept, so run the same command again"
        ) from error


_DEFAULTS = HubSource("")


def upload(
    files: Mapping[str, Path | bytes],
    repo: str,
    *,
    card: str,
    private: bool | None = None,
    token: str | None = None,
    message: str | None = None,
    revision: str | None = None,
) -> str:
    """Writes files to a repository in one commit, and returns the address of that commit.

    The repository, and the branch `revision`, are made where they do not exist.

    Args:
        files: paths, or contents, by their names in the repository.
        card: its model card; a card that the repository has already is kept.
        private: whether a repository that is made is private; as the account has it when left out.

    Raises:
        InputError: `repo` is no hub id.
        HubError: no token, one that may not write, or a connection that broke off.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not is_hub_id(repo):
        raise InputError(f"got the repository {repo!r}; expected a hub id: owner/name")
    api = HfApi(token=token, library_name="energycomp")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        files = dict(files) if api.file_exists(repo, CARD, revision=revision) else {**files, CARD: card.encode()}
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()]
        done = api.create_commit(repo, operations, commit_message=message or "Upload model", revision=revision)
    except Exception as error:
        _refused(repo, error)
    return str(done.commit_url)


def _refused(repo: str, error: Exception) -> NoReturn:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalTokenNotFoundError):
        raise HubError(f"got no token to write to {repo!r}; {LOG_IN}") from error
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        raise HubError(
            f"got a token that may not write to {repo!r}, or none ({error.response.status_code}); expected one with "
            f"write access to it; {LOG_IN}"
        ) from error
    raise HubError(
        f"the upload to {repo!r} failed ({type(error).__name__}: {_short(error)}); the repository is as it was, so run "
        "the same command again"
    ) from error


def _short(error: Exception) -> str:
    """The first line of a message of the client, without the advice that follows."""
    return first_line(error)[:200].rstrip(".:; ")
