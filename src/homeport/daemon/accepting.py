"""Which webhooks are accepted at this moment, and with which secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable

from homeport.daemon.hooks import Hook
from homeport.daemon.served import Environment, Served
from homeport.decide import webhooks
from homeport.model.config import Forge
from homeport.model.errors import HomeportError

log = logging.getLogger("homeport.daemon")


class Accepting:
    """The webhooks that are accepted: read anew at each delivery, so that a secret counts as soon as the configuration
    or its file holds it, and no longer than that."""

    def __init__(self, served: Served, secret_of: Callable[[Forge, int], str],
                 repository_of: Callable[[Forge, str | None], str]) -> None:  # fmt: skip
        self._served, self._secret_of, self._repository_of = served, secret_of, repository_of
        self._told: set[str] = set()

    def check(self) -> None:
        """Raises ConfigFault (codes `empty-secret`, `no-secret`): better not to start."""
        for environment in self._served:
            forge = environment.now().config.forge
            if forge is not None and forge.webhook_secret:
                secrets = [self._secret_of(forge, number) for number in range(len(forge.webhook_secret))]
                self._of(environment, forge, webhooks.usable(secrets))

    def __call__(self) -> list[Hook]:
        """A secret that cannot be read, or is empty, signs nothing; the others still do."""
        found, wrong = [], set()
        for environment in self._served:
            forge = environment.now().config.forge
            if forge is None:
                continue
            secrets: list[bytes] = []
            for number in range(len(forge.webhook_secret)):
                try:
                    secrets += webhooks.usable([self._secret_of(forge, number)])
                except HomeportError as fault:
                    wrong.add(str(fault))
            try:
                found += [self._of(environment, forge, secrets)] if secrets else []
            except HomeportError as fault:
                wrong.add(str(fault))
        for what in sorted(wrong - self._told):
            log.error("a webhook secret is of no use: %s", what)
        self._told = wrong
        return found

    def _of(self, environment: Environment, forge: Forge, secrets: list[bytes]) -> Hook:
        repository = self._repository_of(forge, environment.site.store.meta("repo"))
        return Hook(environment=environment, kind=forge.kind, secrets=secrets, repository=repository)
