//! What the kernel really holds under our table's name: its chains, how many rules each has, and how often each
//! counted rule matched. Reads only; changing is `transaction`'s work.

use std::fmt::{self, Display, Formatter};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{ChainAttribute, ChainMessage, Hook, NfTablesMessage, RuleAttribute, RuleMessage},
};

use crate::redirect::{
    expressions::{self, Expression},
    rules::TABLE,
    wire::{self, Error, append},
};

/// Our table as the kernel holds it; no chains if it is not installed.
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
    /// Its rank; lower runs first.
    pub priority: Option<i32>,
    /// Its rules.
    pub rules: Vec<InstalledRule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledRule {
    /// Its comment.
    pub label: Option<String>,
    /// How many packets matched, if it counts: the first of each connection where the chain rewrites.
    pub packets: Option<u64>,
    expressions: Vec<Expression>,
}

impl Installed {
    /// How often the rule counted as `label` matched.
    #[must_use]
    pub fn packets(&self, label: &str) -> Option<u64> {
        let mut rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.find(|rule| rule.label.as_deref() == Some(label))?.packets
    }

    /// The same rules with counters at zero: two installations of one plan are equal.
    #[must_use]
    pub fn uncounted(mut self) -> Self {
        for rule in self.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            rule.packets = rule.packets.map(|_| 0);
            rule.expressions.retain(|expression| expressions::packets(expression).is_none());
        }
        self
    }
}

impl Display for Installed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.chains.is_empty() {
            return writeln!(f, "not installed");
        }
        for InstalledChain { name, priority, rules } in &self.chains {
            let priority = priority.map_or_else(|| "none".to_owned(), |priority| priority.to_string());
            writeln!(f, "chain {name}, priority {priority}, {} rules", rules.len())?;
            for rule in rules {
                if let InstalledRule { label: Some(label), packets: Some(packets), .. } = rule {
                    writeln!(f, "  {packets:>10}  {label}")?;
                }
            }
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
        let mut chains = installed.chains.iter_mut();
        if let Some(chain) = chains.find(|chain| chain.name == name) {
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
    let mut chain = InstalledChain { name: String::new(), priority: None, rules: Vec::new() };
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(table) if table != TABLE => return None,
            ChainAttribute::Name(name) => chain.name = name,
            ChainAttribute::Hook(hook) => chain.priority = hook.iter().find_map(priority),
            _ => {}
        }
    }
    Some(chain)
}

fn priority(hook: &Hook) -> Option<i32> {
    let Hook::Priority(priority) = hook else { return None };
    Some(priority.cast_signed())
}

fn rule(message: NfTablesMessage) -> Option<(String, InstalledRule)> {
    let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else { return None };
    let mut chain = None;
    let mut rule = InstalledRule { label: None, packets: None, expressions: Vec::new() };
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(table) if table != TABLE => return None,
            RuleAttribute::Chain(name) => chain = Some(name),
            RuleAttribute::UserData(comment) => rule.label = expressions::label(&comment),
            RuleAttribute::Expressions(expressions) => rule.expressions = expressions,
            _ => {}
        }
    }
    rule.packets = rule.expressions.iter().find_map(expressions::packets);
    Some((chain?, rule))
}
