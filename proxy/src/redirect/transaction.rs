//! Changes the kernel's table in one step: all messages of a batch take effect together or none does. Translates a
//! plan into messages, sends them, and says which one the kernel refused. Reading back is `inspection`'s work.

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Hook as HookAttribute, InetHookNumber, NfTablesMessage, RuleAttribute,
        RuleMessage, TableAttribute, TableMessage,
    },
    none::ControlMessage,
};

use crate::redirect::{
    error::Error,
    expressions,
    kernel::NF_ACCEPT,
    plan::Plan,
    rules::{Chain, Hook, Kind, Rule, TABLE},
    wire::{self, append},
};

/// One change of a batch, with the words that an error names it by.
struct Operation {
    name: String,
    flags: u16,
    message: NfTablesMessage,
}

/// Puts `plan` in the place of whatever our table held, in one transaction.
pub(crate) fn replace(plan: &Plan) -> Result<(), Error> {
    // DESTROYTABLE came with Linux 6.3. Adding a table that exists changes nothing, so that the deletion always
    // finds one: this works on every kernel.
    let mut operations = vec![add_table(), delete_table(), add_table()];
    for chain in &plan.chains {
        operations.push(add_chain(chain));
        operations.extend(chain.rules.iter().map(|rule| add_rule(chain, rule)));
    }
    commit(operations)
}

/// Removes our table with all that it holds; one that is not there is gone already.
pub(crate) fn remove() -> Result<(), Error> {
    commit(vec![add_table(), delete_table()])
}

fn commit(operations: Vec<Operation>) -> Result<(), Error> {
    let last = operations.len();
    let mut names = vec!["begin the transaction".to_owned()];
    let mut batch = Vec::new();
    append(&mut batch, control(ControlMessage::BatchBegin), NLM_F_REQUEST, 0);
    for (before, operation) in operations.into_iter().enumerate() {
        let sequence = before + 1;
        // Errors are always answered; one acknowledgement, of the last, tells that there were none.
        let acknowledge = if sequence == last { NLM_F_ACK } else { 0 };
        let flags = NLM_F_REQUEST | operation.flags | acknowledge;
        append(&mut batch, inet(operation.message), flags, number(sequence));
        names.push(operation.name);
    }
    append(&mut batch, control(ControlMessage::BatchEnd), NLM_F_REQUEST, number(last + 1));

    for answer in wire::ask(&batch)? {
        let NetlinkPayload::Error(verdict) = answer.payload else { continue };
        if verdict.code.is_some() {
            let operation = usize::try_from(answer.header.sequence_number).ok().and_then(|at| names.get(at));
            let operation = operation.map_or("an operation that was not sent", String::as_str).to_owned();
            return Err(Error::Refused { operation, source: verdict.to_io() });
        }
        if answer.header.sequence_number == number(last) {
            return Ok(());
        }
    }
    Err(Error::Unanswered)
}

fn add_table() -> Operation {
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    Operation {
        name: format!("add table inet {TABLE}"),
        flags: NLM_F_CREATE,
        message: NfTablesMessage::NewTable(TableMessage { attributes }),
    }
}

fn delete_table() -> Operation {
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    Operation {
        name: format!("delete table inet {TABLE}"),
        flags: 0,
        message: NfTablesMessage::DeleteTable(TableMessage { attributes }),
    }
}

fn add_chain(chain: &Chain) -> Operation {
    let hook = match chain.hook {
        Hook::Prerouting => InetHookNumber::PreRouting,
        Hook::Input => InetHookNumber::LocalIn,
        Hook::Output => InetHookNumber::LocalOut,
    };
    let kind = match chain.kind {
        Kind::Nat => "nat",
        Kind::Filter => "filter",
    };
    let attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(chain.name.to_owned()),
        ChainAttribute::Hook(vec![
            HookAttribute::Number(hook.into()),
            HookAttribute::Priority(chain.priority.cast_unsigned()),
        ]),
        ChainAttribute::Type(kind.to_owned()),
        ChainAttribute::Policy(NF_ACCEPT),
    ];
    Operation {
        name: format!("add chain inet {TABLE} {}", chain.name),
        flags: NLM_F_CREATE,
        message: NfTablesMessage::NewChain(ChainMessage { attributes }),
    }
}

fn add_rule(chain: &Chain, rule: &Rule) -> Operation {
    let mut attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(chain.name.to_owned()),
        RuleAttribute::Expressions(expressions::of(rule)),
    ];
    attributes.extend(rule.counted.map(expressions::comment));
    Operation {
        name: format!("add rule inet {TABLE} {} {rule}", chain.name),
        flags: NLM_F_CREATE | NLM_F_APPEND,
        message: NfTablesMessage::NewRule(RuleMessage { attributes }),
    }
}

fn inet(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message)
}

fn control(message: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
    NetfilterMessage::new(header, NetfilterMessageInner::None(message))
}

/// Sequence numbers are places in the batch: 0 is its beginning.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

// linux/netfilter/nfnetlink.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
