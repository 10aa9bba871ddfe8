//! What the kernel really holds under our table's name: chains, rules, and how often each counted rule matched. Reads
//! only; changing is `transaction`'s work.

use std::fmt::{self, Display, Formatter};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, InetHookNumber, NfTablesMessage,
        RuleAttribute, RuleMessage,
    },
};

use crate::redirect::{
    error::Error,
    kernel::NF_DROP,
    reading::{self, Reading},
    rules::{Hook, TABLE, Verdict},
    text,
    wire::{self, append},
};

/// Our table as the kernel holds it; without chains if it is not installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its chains, in the order in which they were made.
    pub chains: Vec<InstalledChain>,
}

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledChain {
    /// Its name.
    pub name: String,
    /// Its rules, in the order in which they decide.
    pub rules: Vec<InstalledRule>,
    kind: String,
    hook: Option<Hook>,
    priority: i32,
    policy: Verdict,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledRule {
    /// What its counter counts.
    pub label: Option<String>,
    reading: Reading,
}

impl InstalledRule {
    /// How many packets matched, if it counts. A chain that rewrites sees only the first packet of a connection.
    #[must_use]
    pub const fn packets(&self) -> Option<u64> {
        self.reading.packets
    }
}

impl Installed {
    /// How many packets the rule counted that is labelled so.
    #[must_use]
    pub fn packets(&self, label: &str) -> Option<u64> {
        let mut rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.find(|rule| rule.label.as_deref() == Some(label))?.packets()
    }
}

impl Display for Installed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.chains.is_empty() {
            return writeln!(f, "table inet {TABLE} is not installed");
        }
        writeln!(f, "table inet {TABLE} {{")?;
        for InstalledChain { name, rules, kind, hook, priority, policy } in &self.chains {
            writeln!(f, "  chain {name} {{")?;
            let hook = hook.map_or_else(|| "unknown".to_owned(), |hook| hook.to_string());
            writeln!(f, "    type {kind} hook {hook} priority {priority}; policy {policy};")?;
            for rule in rules {
                writeln!(f, "    {rule}")?;
            }
            writeln!(f, "  }}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for InstalledRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Reading { matches, packets, verdict, unknown, .. } = &self.reading;
        text::conditions(matches, f)?;
        for expression in unknown {
            write!(f, "[not ours: {expression}] ")?;
        }
        if let Some(packets) = packets {
            write!(f, "counter packets {packets} ")?;
        }
        if let Some(verdict) = verdict {
            write!(f, "{verdict}")?;
        }
        if let Some(label) = &self.label {
            write!(f, " comment \"{label}\"")?;
        }
        Ok(())
    }
}

/// Reads our table.
pub(crate) fn read() -> Result<Installed, Error> {
    let chains = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let mut installed = Installed { chains: dump(chains)?.into_iter().filter_map(chain).collect() };
    let attributes = vec![RuleAttribute::Table(TABLE.to_owned())];
    for message in dump(NfTablesMessage::GetRule(RuleMessage { attributes }))? {
        let Some((name, rule)) = rule(message) else { continue };
        if let Some(chain) = installed.chains.iter_mut().find(|chain| chain.name == name) {
            chain.rules.push(rule);
        }
    }
    Ok(installed)
}

fn dump(request: NfTablesMessage) -> Result<Vec<NfTablesMessage>, Error> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    let mut octets = Vec::new();
    append(&mut octets, NetfilterMessage::new(header, request), NLM_F_REQUEST | NLM_F_DUMP, 0);

    let mut found = Vec::new();
    for answer in wire::ask(&octets)? {
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => {
                if let NetfilterMessageInner::NfTables(message) = message.inner {
                    found.push(message);
                }
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                let operation = format!("list table inet {TABLE}");
                return Err(Error::Refused { operation, source: error.to_io() });
            }
            _ => {}
        }
    }
    Ok(found)
}

fn chain(message: NfTablesMessage) -> Option<InstalledChain> {
    let NfTablesMessage::NewChain(ChainMessage { attributes }) = message else { return None };
    let mut chain = InstalledChain {
        name: String::new(),
        rules: Vec::new(),
        kind: String::new(),
        hook: None,
        priority: 0,
        policy: Verdict::Accept,
    };
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(table) if table != TABLE => return None,
            ChainAttribute::Name(name) => chain.name = name,
            ChainAttribute::Type(kind) => chain.kind = kind,
            ChainAttribute::Policy(NF_DROP) => chain.policy = Verdict::Drop,
            ChainAttribute::Hook(attributes) => {
                chain.hook = attributes.iter().find_map(hook);
                chain.priority = attributes.iter().find_map(priority).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(chain)
}

fn hook(attribute: &HookAttribute) -> Option<Hook> {
    let HookAttribute::Number(HookNumber::Inet(number)) = attribute else { return None };
    match number {
        InetHookNumber::PreRouting => Some(Hook::Prerouting),
        InetHookNumber::LocalIn => Some(Hook::Input),
        InetHookNumber::LocalOut => Some(Hook::Output),
        _ => None,
    }
}

fn priority(attribute: &HookAttribute) -> Option<i32> {
    let HookAttribute::Priority(priority) = attribute else { return None };
    Some(priority.cast_signed())
}

fn rule(message: NfTablesMessage) -> Option<(String, InstalledRule)> {
    let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else { return None };
    let mut chain = None;
    let mut rule = InstalledRule { label: None, reading: Reading::default() };
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(table) if table != TABLE => return None,
            RuleAttribute::Chain(name) => chain = Some(name),
            RuleAttribute::UserData(comment) => rule.label = reading::label(&comment),
            RuleAttribute::Expressions(expressions) => rule.reading = reading::of(&expressions),
            _ => {}
        }
    }
    Some((chain?, rule))
}
