//! Prints rules as `nft` would read them, so that an operator can compare a plan with `nft list table inet douane`.

use std::fmt::{self, Display, Formatter};

use ipnet::IpNet;

use crate::redirect::{
    plan::Plan,
    rules::{Chain, Hook, Kind, Match, Protocol, Rule, TABLE, Verdict},
};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, kind, hook, priority, rules } = self;
        writeln!(f, "  chain {name} {{")?;
        writeln!(f, "    type {kind} hook {hook} priority {priority}; policy accept;")?;
        for rule in rules {
            writeln!(f, "    {rule}")?;
        }
        writeln!(f, "  }}")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        conditions(&self.matches, f)?;
        match self.counted {
            Some(label) => write!(f, "counter {} comment \"{label}\"", self.verdict),
            None => write!(f, "{}", self.verdict),
        }
    }
}

/// Each followed by a space.
pub(crate) fn conditions(matches: &[Match], f: &mut Formatter<'_>) -> fmt::Result {
    let mut matches = matches.iter().peekable();
    while let Some(condition) = matches.next() {
        match (condition, matches.peek()) {
            (Match::Protocol(protocol), Some(Match::Port(port))) => {
                matches.next();
                write!(f, "{protocol} dport {port} ")?;
            }
            (condition, _) => write!(f, "{condition} ")?,
        }
    }
    Ok(())
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::Port(port) => write!(f, "th dport {port}"),
            Self::To(IpNet::V4(net)) => write!(f, "ip daddr {net}"),
            Self::To(IpNet::V6(net)) => write!(f, "ip6 daddr {net}"),
            Self::ToLocalAddress => f.write_str("fib daddr type local"),
            Self::FromLoopback => f.write_str("iif lo"),
            Self::ToLoopback => f.write_str("oif lo"),
            Self::Uid(uid) => write!(f, "meta skuid {uid}"),
            Self::Mark(mark) => write!(f, "meta mark {mark:#010x}"),
            Self::Established => f.write_str("ct state established"),
            Self::Rewritten => f.write_str("ct status dnat"),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::RedirectTo(port) => write!(f, "redirect to :{port}"),
        }
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Sctp => "sctp",
            Self::Dccp => "dccp",
        })
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
        })
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}
