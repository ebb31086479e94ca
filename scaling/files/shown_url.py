"""Addresses fit to be shown: without the user, password or token that they may carry."""

# pyright: strict

import os
import re
from typing import Final
from urllib.parse import unquote

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S+")
_PARAMETER: Final = re.compile(r"([?&;]([^\s=&;?]+)=)[^\s&;'\"]+")
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:@\[\]]*)(:\d*)?")
_SECRET_NAME: Final = re.compile(
    r"token|key|secret|passw|passphrase|pwd|credential|signature|auth|bearer"
    r"|^(pass|pw|sig|sas|jwt|pat)$"
)
_CONTAINERS: Final = frozenset({"abfs", "abfss", "az", "wasb", "wasbs"})
"""Where what stands before an @ is a container of Azure's, not a user."""
_VARIABLES: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN)",
    "s3a": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
    **dict.fromkeys(_CONTAINERS, "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"),
}


def shown_url(url: str) -> str:
    """An address without its user part and without what follows a ? or #.

    Text that is no address (a path, say) comes back as it is, up to a ? that a secret follows.
    Where it is not clear which @ ends the user part (a password may hold some), the last one.
    """
    found = _SCHEME.match(url)
    if found is None:
        return url.split("?")[0] if _has_secret(url) else url
    start, rest = url[: found.end()], url[found.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not _HOST.fullmatch(authority):
        rest = rest.rpartition("@")[2]
    return start + re.split(r"[?#]", rest, maxsplit=1)[0]


def without_credentials(text: str) -> str:
    """A text, such as an error of a library, whose addresses are fit to be shown."""
    return _PARAMETER.sub(_shown_parameter, _URL.sub(_shown_match, text))


def credential_problem(place: str) -> str | None:
    """Why a place for files may not be given as it is; None where it carries no credential.

    Args:
        place: A folder, or a URL (or several, joined by :: as in fsspec) that files go to.

    Returns:
        What is wrong and where the credential belongs, without the credential: a user part, or
        a token, key, secret or password after a ?.
    """
    for part in place.split("::"):
        if _has_user(part) or _has_secret(part):
            return f"must not carry a credential; {_way_on(part)}"
    return None


def mlflow_uri_words(uri: str) -> str:
    """How a shell is told of a tracking URI: itself, or the variable that holds its credential."""
    if shown_url(uri) == uri:
        return uri
    is_variable = os.environ.get("MLFLOW_TRACKING_URI") == uri
    return '"$MLFLOW_TRACKING_URI"' if is_variable else shown_url(uri)


def _shown_match(found: re.Match[str]) -> str:
    address = found[0]
    bare = address.rstrip("\"'`)>]},;:.")
    return shown_url(bare) + address[len(bare) :]


def _shown_parameter(found: re.Match[str]) -> str:
    """A secret after a ?, where a library shows what follows the host alone."""
    return f"{found[1]}…" if _SECRET_NAME.search(unquote(found[2]).lower()) else found[0]


def _has_user(place: str) -> bool:
    found = _SCHEME.match(place)
    if found is None:
        return False
    rest = place[found.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if found[1].lower() in _CONTAINERS and re.fullmatch(r"[^:@]*@[^:@]*(:\d*)?", authority):
        return False
    return "@" in rest and not _HOST.fullmatch(authority)


def _has_secret(place: str) -> bool:
    """Whether a ? (in a URL a #, too) is followed by a token or the like, %xx read."""
    start = r"[?#]" if _SCHEME.match(place) else r"[?]"
    after = "".join(re.split(f"({start})", unquote(place), maxsplit=1)[1:])
    names = (part.split("=")[0].strip().lower() for part in re.split(r"[?#&;]", after))
    return any(_SECRET_NAME.search(name) for name in names)


def _way_on(place: str) -> str:
    found = _SCHEME.match(place)
    if found is None or found[1].lower() == "file":
        return "leave it out: a folder needs none"
    scheme = found[1].lower()
    other = re.sub(r"\W", "_", scheme).upper()
    variables = _VARIABLES.get(scheme, f"FSSPEC_{other}_USERNAME and FSSPEC_{other}_PASSWORD")
    return f"give it by the environment variables {variables}"
