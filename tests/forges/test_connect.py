"""Which forge, where, and which repository on it: from the configuration and the git address."""

from __future__ import annotations

import pytest

from homeport.doors.forges.connect import address, connect
from homeport.model.config import Forge
from homeport.model.errors import ConfigFault

from .conftest import Memory
from .fakes import TOKEN

HUB, LAB, TEA = "https://github.com", "https://gitlab.com", "https://git.example.com"


@pytest.mark.parametrize(
    ("config", "remote", "expected"),
    [
        (Forge(kind="github"), "git@github.com:octo/shop.git", (HUB, "octo/shop")),
        (Forge(kind="github"), "https://github.com/octo/shop", (HUB, "octo/shop")),
        (Forge(kind="github"), "https://x-access-token:secret@github.com/octo/shop.git", (HUB, "octo/shop")),
        (Forge(kind="github"), "ssh://git@ssh.github.com:443/octo/shop.git", (HUB, "octo/shop")),
        (Forge(kind="github"), "git@github-work:octo/shop.git", (HUB, "octo/shop")),
        (Forge(kind="github"), "git@ghe.example.com:octo/shop.git", ("https://ghe.example.com", "octo/shop")),
        (Forge(kind="github", repo="octo/shop"), None, (HUB, "octo/shop")),
        (Forge(kind="github", repo="octo/shop"), "/srv/git/shop.git", (HUB, "octo/shop")),
        (Forge(kind="gitlab"), "git@gitlab.com:group/sub/shop.git", (LAB, "group/sub/shop")),
        (Forge(kind="gitlab"), "ssh://git@altssh.gitlab.com:443/group/shop.git", (LAB, "group/shop")),
        (Forge(kind="gitea"), "ssh://git@git.example.com:2222/octo/shop.git", (TEA, "octo/shop")),
        (Forge(kind="gitea"), "https://git.example.com:3000/octo/shop.git", (f"{TEA}:3000", "octo/shop")),
        (Forge(kind="gitea", url="http://gitea:3000/", repo="octo/shop"), None, ("http://gitea:3000", "octo/shop")),
        (Forge(kind="gitea", url=f"{TEA}/code", repo="octo/shop"), None, (f"{TEA}/code", "octo/shop")),
    ],
)
def test_address(config: Forge, remote: str | None, expected: tuple[str, str]) -> None:
    assert address(config, remote) == expected
    forge = connect(config, TOKEN, Memory(), remote=remote)
    assert forge.kind == config.kind
    forge.close()


@pytest.mark.parametrize(
    ("config", "remote", "code"),
    [
        (Forge(kind="github"), None, "forge-repo"),
        (Forge(kind="github"), "/srv/git/shop.git", "forge-repo"),
        (Forge(kind="github", repo="shop"), None, "forge-repo"),
        (Forge(kind="github", repo="octo/shop/more"), None, "forge-repo"),
        (Forge(kind="github", repo="octo/.."), None, "forge-repo"),
        (Forge(kind="github", repo="octo/shop?x=1"), None, "forge-repo"),
        (Forge(kind="gitlab", repo="-x/shop"), None, "forge-repo"),
        (Forge(kind="gitea", repo="octo/shop"), None, "forge-url"),
        (Forge(kind="gitea", url="ftp://git.example.com", repo="octo/shop"), None, "forge-url"),
        (Forge(kind="gitea", url="git.example.com", repo="octo/shop"), None, "forge-url"),
        (Forge(kind="gitea", url="https://u:p@git.example.com", repo="octo/shop"), None, "forge-url"),
        (Forge(kind="gitea", url="https://git.example.com?x=1", repo="octo/shop"), None, "forge-url"),
        (Forge(kind="gitea", url="https://[::1", repo="octo/shop"), None, "forge-url"),
        (Forge(kind="gitea", url="https://git.example.com:99999", repo="octo/shop"), None, "forge-url"),
    ],
)
def test_what_is_no_address_is_said_so(config: Forge, remote: str | None, code: str) -> None:
    with pytest.raises(ConfigFault) as caught:
        connect(config, TOKEN, Memory(), remote=remote)
    assert caught.value.code == code and caught.value.next


def test_public_github_has_its_api_on_another_host() -> None:
    forge = connect(Forge(kind="github", repo="octo/shop"), TOKEN, Memory())
    assert "https://api.github.com" in repr(forge._client)  # type: ignore[attr-defined]


def test_httpx_is_not_imported_before_it_is_needed() -> None:
    import subprocess
    import sys

    code = "import sys, homeport.doors.forges.connect, homeport.decide.webhooks; assert 'httpx' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
