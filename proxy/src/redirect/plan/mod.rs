//! Which packets of a pod go through the sidecar: the rules of one nf_tables table, as data. Pure: knows the law of
//! redirection and nothing of netlink. `text` prints a plan, `expressions` and `transaction` bring it to the kernel.
//!
//! Four chains. `inbound` and `outbound` rewrite the destination of TCP to the sidecar's ports. `guard_inbound` and
//! `guard_outbound` stand behind them and drop what cannot be redirected: datagrams, and TCP that escaped rewriting
//! (a packet that connection tracking cannot place skips NAT, and would enter or leave in plaintext).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::redirect::rules::{Chain, Hook, Kind, Match, Protocol, Rule, Verdict};

/// Where the pod's own connections are redirected to; bound on loopback only.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where connections to the pod are redirected to.
pub const INBOUND_PORT: u16 = 15006;
/// Health and metrics, reachable from outside the mesh.
pub const HEALTH_PORT: u16 = 15020;
/// The uid that the sidecar has in a cluster.
pub const PROXY_UID: u32 = 2112;

// One before `dstnat` (-100): at equal priority the hook registered last runs first, so that another program's
// rules, added later, would take our connections. The first NAT decision is final.
const BEFORE_DSTNAT: i32 = -101;
const FILTER: i32 = 0;
const DNS: u16 = 53;
// All that carries ports without being TCP, and that an application can open without privileges.
const INBOUND_DATAGRAMS: [(Protocol, &str); 4] = [
    (Protocol::Udp, "inbound UDP dropped"),
    (Protocol::UdpLite, "inbound UDP-Lite dropped"),
    (Protocol::Sctp, "inbound SCTP dropped"),
    (Protocol::Dccp, "inbound DCCP dropped"),
];
const OUTBOUND_DATAGRAMS: [(Protocol, &str); 4] = [
    (Protocol::Udp, "outbound UDP dropped"),
    (Protocol::UdpLite, "outbound UDP-Lite dropped"),
    (Protocol::Sctp, "outbound SCTP dropped"),
    (Protocol::Dccp, "outbound DCCP dropped"),
];
const LOOPBACK: [IpNet; 2] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
];

/// Whose connections are the sidecar's own and pass untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    /// Sockets of this uid: in a cluster, and in a lab run by root.
    Uid(u32),
    /// Sockets with this mark: in an unprivileged lab, where only one uid exists.
    Mark(u32),
}

/// A way to spare that would spare the application as well.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpareError {
    /// Two doors out instead of one.
    #[error("spare either a uid or a mark, never both")]
    Both,
    /// Packets without a mark have mark 0.
    #[error("mark 0 is on every packet: nothing would be redirected")]
    NoMark,
    /// Applications often run as root.
    #[error("uid 0 is any root process of the pod: give the sidecar a uid of its own, such as {PROXY_UID}")]
    Root,
}

impl Spare {
    /// What to spare as told on a command line; the sidecar's usual uid where nothing was told.
    ///
    /// # Errors
    /// Both were told, or one that every application has too.
    pub fn chosen(uid: Option<u32>, mark: Option<u32>) -> Result<Self, SpareError> {
        match (uid, mark) {
            (Some(_), Some(_)) => Err(SpareError::Both),
            (Some(0), None) => Err(SpareError::Root),
            (None, Some(0)) => Err(SpareError::NoMark),
            (None, Some(mark)) => Ok(Self::Mark(mark)),
            (Some(uid), None) => Ok(Self::Uid(uid)),
            (None, None) => Ok(Self::Uid(PROXY_UID)),
        }
    }
}

/// What becomes of UDP, SCTP and DCCP, which no sidecar carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagrams {
    /// All pass, unseen by the mesh.
    Allow,
    /// All are dropped and counted, except on loopback, replies, and what is named here.
    Deny {
        /// Resolvers that UDP port 53 may reach.
        dns_resolvers: Vec<IpAddr>,
        /// UDP ports that pass in both directions.
        udp_ports: Vec<u16>,
    },
}

/// What a pod's redirection may vary in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirection {
    /// The sidecar's own connections.
    pub spare: Spare,
    /// Ports of the pod that stay open to anyone, in plaintext.
    pub excluded_inbound_ports: Vec<u16>,
    /// Ports that the pod's connections reach directly.
    pub excluded_outbound_ports: Vec<u16>,
    /// Networks that the pod's connections reach directly.
    pub excluded_outbound_cidrs: Vec<IpNet>,
    /// What becomes of traffic other than TCP.
    pub datagrams: Datagrams,
}

/// Chains in order, each with its rules in order: the first rule that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The chains.
    pub chains: Vec<Chain>,
}

impl Plan {
    /// The rules for one pod.
    #[must_use]
    pub fn new(wanted: &Redirection) -> Self {
        Self {
            chains: vec![inbound(wanted), outbound(wanted), guard_inbound(wanted), guard_outbound(wanted)],
        }
    }
}

fn inbound(wanted: &Redirection) -> Chain {
    let mut rules = vec![accept(tcp_port(HEALTH_PORT))];
    rules.extend(wanted.excluded_inbound_ports.iter().map(|port| accept(tcp_port(*port))));
    // A direct call to 15001 ends here as well: at 15006, with an original port that the sidecar refuses.
    rules.push(Rule {
        matches: vec![Match::Protocol(Protocol::Tcp), Match::ToLocalAddress],
        verdict: Verdict::RedirectTo(INBOUND_PORT),
        counted: Some("inbound connections redirected"),
    });
    Chain { name: "inbound", kind: Kind::Nat, hook: Hook::Prerouting, priority: BEFORE_DSTNAT, rules }
}

fn outbound(wanted: &Redirection) -> Chain {
    let mut rules = vec![accept([spared(wanted.spare)])];
    // Only to loopback addresses: a call to the pod's own address also leaves by lo, and is redirected.
    for loopback in LOOPBACK {
        rules.push(accept([Match::ToLoopback, Match::To(loopback)]));
    }
    rules.extend(excluded_outbound(wanted));
    rules.push(Rule {
        matches: vec![Match::Protocol(Protocol::Tcp)],
        verdict: Verdict::RedirectTo(OUTBOUND_PORT),
        counted: Some("outbound connections redirected"),
    });
    Chain { name: "outbound", kind: Kind::Nat, hook: Hook::Output, priority: BEFORE_DSTNAT, rules }
}

fn guard_inbound(wanted: &Redirection) -> Chain {
    let mut rules = vec![accept([Match::FromLoopback]), accept([Match::Established])];
    rules.push(accept([Match::Protocol(Protocol::Tcp), Match::Rewritten]));
    // A direct call to 15006 is redirected to where it already goes, hence not rewritten: the sidecar refuses it
    // with a reason, which is better than a silent drop.
    rules.extend([INBOUND_PORT, HEALTH_PORT].map(|port| accept(tcp_port(port))));
    rules.extend(wanted.excluded_inbound_ports.iter().map(|port| accept(tcp_port(*port))));
    rules.push(drop_counted(Protocol::Tcp, "inbound TCP that escaped redirection dropped"));
    if let Datagrams::Deny { udp_ports, .. } = &wanted.datagrams {
        rules.extend(udp_ports.iter().map(|port| accept(udp_port(*port))));
        rules.extend(INBOUND_DATAGRAMS.map(|(protocol, label)| drop_counted(protocol, label)));
    }
    Chain { name: "guard_inbound", kind: Kind::Filter, hook: Hook::Input, priority: FILTER, rules }
}

fn guard_outbound(wanted: &Redirection) -> Chain {
    let mut rules = vec![accept([Match::ToLoopback]), accept([Match::Established])];
    rules.push(accept([Match::Protocol(Protocol::Tcp), Match::Rewritten]));
    rules.push(accept([Match::Protocol(Protocol::Tcp), spared(wanted.spare)]));
    rules.extend(excluded_outbound(wanted));
    rules.push(drop_counted(Protocol::Tcp, "outbound TCP that escaped redirection dropped"));
    if let Datagrams::Deny { dns_resolvers, udp_ports } = &wanted.datagrams {
        for resolver in dns_resolvers {
            let [udp, dns] = udp_port(DNS);
            rules.push(accept([Match::To(IpNet::from(resolver.to_canonical())), udp, dns]));
        }
        rules.extend(udp_ports.iter().map(|port| accept(udp_port(*port))));
        rules.extend(OUTBOUND_DATAGRAMS.map(|(protocol, label)| drop_counted(protocol, label)));
    }
    Chain { name: "guard_outbound", kind: Kind::Filter, hook: Hook::Output, priority: FILTER, rules }
}

fn excluded_outbound(wanted: &Redirection) -> impl Iterator<Item = Rule> {
    let ports = wanted.excluded_outbound_ports.iter().map(|port| accept(tcp_port(*port)));
    let tcp = Match::Protocol(Protocol::Tcp);
    let cidrs = wanted.excluded_outbound_cidrs.iter().map(move |cidr| accept([tcp, Match::To(cidr.trunc())]));
    ports.chain(cidrs)
}

const fn spared(spare: Spare) -> Match {
    match spare {
        Spare::Uid(uid) => Match::Uid(uid),
        Spare::Mark(mark) => Match::Mark(mark),
    }
}

const fn tcp_port(port: u16) -> [Match; 2] {
    [Match::Protocol(Protocol::Tcp), Match::Port(port)]
}

const fn udp_port(port: u16) -> [Match; 2] {
    [Match::Protocol(Protocol::Udp), Match::Port(port)]
}

fn accept<const N: usize>(matches: [Match; N]) -> Rule {
    Rule { matches: matches.to_vec(), verdict: Verdict::Accept, counted: None }
}

fn drop_counted(protocol: Protocol, label: &'static str) -> Rule {
    Rule { matches: vec![Match::Protocol(protocol)], verdict: Verdict::Drop, counted: Some(label) }
}

#[cfg(test)]
mod tests;
