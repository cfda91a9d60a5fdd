"""Which machine an environment's work belongs on. Identity is the host's own word, never the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from homeport.model.config import Config, HostConfig
from homeport.model.errors import Refused, UsageFault
from homeport.model.remote import Place


def owning(host_config: HostConfig | None, carries: Callable[[str], bool]) -> Callable[[str], bool]:
    """Whether an address is this machine's: it carries it, or its own host file says that it leads here."""

    def owns(address: str) -> bool:
        from ipaddress import ip_address

        told = host_config.addresses if host_config is not None else ()
        return carries(address) or any(ip_address(address) == ip_address(one) for one in told)

    return owns


def elsewhere(config: Config, environment: str, here: str, sure: bool, asked: str | None,
              owns: Callable[[str], bool]) -> tuple[Place, ...]:  # fmt: skip
    """The other machines to work on; empty: this one.

    `here` is this machine's name, `sure` when a host file gives it. A name that is only the machine's network name
    counts when one of the host's addresses is its own, or it has none. Raises UsageFault (code `no-host`).
    """
    hosts = config.environments[environment].hosts
    if asked is not None and asked not in hosts and asked != here:
        there = f"there is {', '.join(hosts)}" if hosts else "it has no hosts, so it is this machine"
        raise UsageFault(f"environment {environment} has no host {asked}; {there}", where="homeport.toml: hosts",
                         next=f"homeport -e {environment} --host {hosts[0] if hosts else here} status",
                         code="no-host")  # fmt: skip
    wanted = [asked] if asked is not None else list(hosts)
    if not wanted or (here in wanted and (sure or _addressed(config, here, owns))):
        return ()
    return tuple(
        Place(host=name, destination=config.hosts[name].ssh if name in config.hosts else name, environment=environment,
              project=config.project.name, addresses=_addresses(config, name))
        for name in wanted
    )  # fmt: skip


def _addresses(config: Config, host: str) -> tuple[str, ...]:
    return tuple(config.hosts[host].addresses) if host in config.hosts else ()


def _addressed(config: Config, host: str, owns: Callable[[str], bool]) -> bool:
    addresses = _addresses(config, host)
    return not addresses or any(map(owns, addresses))


def check_identity(config: Config, environment: str, host_config: HostConfig | None, here: str, asked: str | None,
                   addresses: Sequence[str], owns: Callable[[str], bool]) -> None:  # fmt: skip
    """Raises Refused (code `identity`) when this machine is not the one that is meant; no option lifts it (A2).

    `addresses` are those that the caller expects beside those of the configuration.
    """
    if host_config is not None and host_config.environments and environment not in host_config.environments:
        raise Refused(f"this host ({here}) does not serve environment {environment}", where="host.toml: environments",
                      next=f"homeport -e {host_config.environments[0]} ...", code="identity")  # fmt: skip
    if asked is not None and asked != here:
        why = "its host.toml says so" if host_config is not None else "it has no host.toml, so its network name counts"
        raise Refused(f"this machine is {here}, not {asked}: {why}", where="host.toml: name",
                      next="is the address right? if so, correct `name` there" if host_config is not None
                      else f"homeport -e {environment} --host {asked} setup   (when the address is right)",
                      code="identity")  # fmt: skip
    expected = [*addresses, *_addresses(config, here)]
    if expected and not any(map(owns, expected)):
        raise Refused(f"this machine calls itself {here}, but has none of the addresses {', '.join(expected)}",
                      where=f"homeport.toml: hosts.{here}.addresses", code="identity",
                      next="ip address   (behind a translating router: `addresses` in its host.toml)")  # fmt: skip
    shared = host_config.addresses if host_config is not None else ()
    _refuse_foreign_address(config, environment, owns, shared)


def _refuse_foreign_address(config: Config, environment: str, owns: Callable[[str], bool],
                            shared: Sequence[str]) -> None:  # fmt: skip
    """The third guard: a machine that has the address of another environment's host is that host, whatever it is called.

    Loopback addresses say nothing about which machine it is, nor does one of a router (`shared`) that leads to a host of
    this environment too.
    """
    if len(config.environments) == 1:
        return
    from ipaddress import ip_address

    own = set(config.environments[environment].hosts)
    both = {address for host in own for address in _addresses(config, host) if address in shared}
    for name, other in config.environments.items():
        for host in other.hosts if name != environment else ():
            for address in _addresses(config, host) if host not in own else ():
                if address not in both and not ip_address(address).is_loopback and owns(address):
                    raise Refused(f"this machine has the address {address} of {host}, which serves {name}, "
                                  f"not {environment}", where=f"homeport.toml: hosts.{host}.addresses",
                                  next=f"homeport -e {name} status   (where it serves both: name {host} in "
                                       f"environments.{environment}.hosts)", code="identity")  # fmt: skip
