//! The words that a plan is written in: the few chains, conditions and verdicts of nf_tables that redirection needs.
//! Values only; `plan` writes with them, `text` prints them, `expressions` translates them for the kernel.

use ipnet::IpNet;

/// The one table that holds all our rules, in the `inet` family: IPv4 and IPv6 alike.
pub const TABLE: &str = "douane";

/// A base chain; what no rule matches is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name within the table.
    pub name: &'static str,
    /// What its rules may do.
    pub kind: Kind,
    /// Where in the packet's way it stands.
    pub hook: Hook,
    /// Its rank among the chains of that hook; lower runs first.
    pub priority: i32,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// What a chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sees the first packet of each connection and may rewrite it.
    Nat,
    /// Sees every packet and may drop it.
    Filter,
}

/// Where a chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Arrived, not yet routed.
    Prerouting,
    /// Arrived, for this pod.
    Input,
    /// Made in this pod.
    Output,
}

/// A verdict and all the conditions for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// What then happens.
    pub verdict: Verdict,
    /// Counted under this label; `None` is not counted.
    pub counted: Option<&'static str>,
}

/// One condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The transport protocol.
    Protocol(Protocol),
    /// The destination port; stands after a `Protocol` that has ports.
    Port(u16),
    /// The destination lies in this network.
    To(IpNet),
    /// The destination is an address of this pod.
    ToLocalAddress,
    /// It arrived by the loopback interface.
    FromLoopback,
    /// It leaves by the loopback interface.
    ToLoopback,
    /// The sending socket's owner.
    Uid(u32),
    /// The packet's mark.
    Mark(u32),
    /// It belongs to a connection that passed before.
    Established,
    /// Its destination was rewritten.
    Rewritten,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
    /// SCTP.
    Sctp,
    /// DCCP.
    Dccp,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Accept,
    /// It is gone.
    Drop,
    /// It goes to this port of this pod.
    RedirectTo(u16),
}
