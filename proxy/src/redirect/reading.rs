//! The kernel's expressions back in the words of `rules`: what is said is what the kernel holds, not what we once sent.
//! The reverse of `expressions`. What this version would not write is named, never left out.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta, MetaKey,
    Operator, Payload, VerdictAttribute,
};

use crate::redirect::{
    expressions::Expression,
    kernel::{
        CONNTRACK, COUNTER, CT_STATE, CT_STATE_ESTABLISHED, CT_STATUS, DESTINATION_PORT, FIB, IPS_DST_NAT,
        IPV4_DESTINATION, IPV6_DESTINATION, LOOPBACK_IFINDEX, NETWORK_HEADER, NF_ACCEPT, NF_DROP,
        NFT_FIB_RESULT_ADDRTYPE, NFTA_COUNTER_PACKETS, NFTA_CT_KEY, NFTA_FIB_F_DADDR, NFTA_FIB_FLAGS,
        NFTA_FIB_RESULT, NFTNL_UDATA_RULE_COMMENT, REDIRECT, RTN_LOCAL, TRANSPORT_HEADER, number,
    },
    rules::{Match, Protocol, Verdict},
};

/// What a rule of the kernel says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reading {
    pub(crate) matches: Vec<Match>,
    pub(crate) packets: Option<u64>,
    pub(crate) verdict: Option<Verdict>,
    /// Names of expressions that we would not have written.
    pub(crate) unknown: Vec<String>,
    /// Checks of the address family: one stands before each network, and is said with it.
    families: usize,
}

/// Reads one rule.
pub(crate) fn of(expressions: &[Expression]) -> Reading {
    let mut reading = Reading::default();
    let mut register = Register::Empty;
    for expression in expressions.iter().filter_map(content) {
        if step(expression, &mut register, &mut reading).is_none() {
            reading.unknown.push(name(expression));
        }
    }
    let networks = reading.matches.iter().filter(|condition| matches!(condition, Match::To(_))).count();
    if reading.families != networks {
        reading.unknown.push("nfproto".to_owned());
    }
    reading
}

/// The label in a rule's comment.
pub(crate) fn label(userdata: &[u8]) -> Option<String> {
    let [NFTNL_UDATA_RULE_COMMENT, _, text @ .., 0] = userdata else { return None };
    String::from_utf8(text.to_vec()).ok()
}

/// What the last expression left behind for the next.
enum Register {
    Empty,
    Meta(MetaKey),
    Packet { header: u32, offset: u32, length: u32 },
    Conntrack(u32),
    DestinationType,
    Masked(Box<Self>, Vec<u8>),
    Constant(Vec<u8>),
}

/// `None` where the expression, or its place, is not one of ours.
fn step(expression: &Expressions, register: &mut Register, reading: &mut Reading) -> Option<()> {
    match expression {
        Expressions::Meta(attributes) => {
            *register = Register::Meta(attributes.iter().find_map(|attribute| match attribute {
                Meta::Key(key) => Some(*key),
                _ => None,
            })?);
        }
        Expressions::Payload(attributes) => *register = packet(attributes)?,
        Expressions::Bitwise(attributes) => {
            let mask = attributes.iter().find_map(|attribute| match attribute {
                Bitwise::Mask(DataAttribute::Value(mask)) => Some(mask.clone()),
                _ => None,
            })?;
            let unmasked = std::mem::replace(register, Register::Empty);
            *register = Register::Masked(Box::new(unmasked), mask);
        }
        Expressions::Cmp(_) if matches!(register, Register::Meta(MetaKey::Nfproto)) => reading.families += 1,
        Expressions::Cmp(attributes) => reading.matches.push(condition(register, attributes)?),
        Expressions::Immediate(attributes) => match immediate(attributes)? {
            DataAttribute::Value(constant) => *register = Register::Constant(constant.clone()),
            DataAttribute::Verdict(attributes) => reading.verdict = Some(verdict(attributes)?),
            _ => return None,
        },
        Expressions::Other { expression_type, attributes } => match expression_type.as_str() {
            CONNTRACK => *register = Register::Conntrack(be32(attributes, NFTA_CT_KEY)?),
            FIB => {
                let asked = (be32(attributes, NFTA_FIB_RESULT)?, be32(attributes, NFTA_FIB_FLAGS)?);
                if asked != (NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR) {
                    return None;
                }
                *register = Register::DestinationType;
            }
            COUNTER => reading.packets = Some(u64::from_be_bytes(value(attributes, NFTA_COUNTER_PACKETS)?)),
            REDIRECT => {
                let Register::Constant(port) = register else { return None };
                let port = u16::from_be_bytes(port.as_slice().try_into().ok()?);
                reading.verdict = Some(Verdict::RedirectTo(port));
            }
            _ => return None,
        },
        _ => return None,
    }
    Some(())
}

/// The condition that a comparison makes of what is in the register.
fn condition(register: &Register, attributes: &[Cmp]) -> Option<Match> {
    let operator = attributes.iter().find_map(|attribute| match attribute {
        Cmp::Op(operator) => Some(*operator),
        _ => None,
    })?;
    let value = attributes.iter().find_map(|attribute| match attribute {
        Cmp::Data(DataAttribute::Value(value)) => Some(value.as_slice()),
        _ => None,
    })?;
    match (register, operator) {
        (Register::Meta(key), Operator::Equal) => meta(*key, value),
        (Register::DestinationType, Operator::Equal) if value == RTN_LOCAL.to_ne_bytes() => {
            Some(Match::ToLocalAddress)
        }
        (
            Register::Packet { header: TRANSPORT_HEADER, offset: DESTINATION_PORT, length: 2 },
            Operator::Equal,
        ) => Some(Match::Port(u16::from_be_bytes(value.try_into().ok()?))),
        (Register::Packet { header: NETWORK_HEADER, offset, .. }, Operator::Equal) => {
            let every_bit = vec![u8::MAX; value.len()];
            network(*offset, value, &every_bit)
        }
        (Register::Masked(masked, mask), operator) => match (masked.as_ref(), operator) {
            (Register::Packet { header: NETWORK_HEADER, offset, .. }, Operator::Equal) => {
                network(*offset, value, mask)
            }
            (Register::Conntrack(key), Operator::NotEqual) if value == 0_u32.to_ne_bytes() => {
                match (*key, u32::from_ne_bytes(mask.as_slice().try_into().ok()?)) {
                    (CT_STATE, CT_STATE_ESTABLISHED) => Some(Match::Established),
                    (CT_STATUS, IPS_DST_NAT) => Some(Match::Rewritten),
                    _ => None,
                }
            }
            _ => None,
        },
        _ => None,
    }
}

fn meta(key: MetaKey, value: &[u8]) -> Option<Match> {
    if let (MetaKey::L4Proto, [protocol]) = (key, value) {
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::UdpLite, Protocol::Sctp, Protocol::Dccp];
        return known.into_iter().find(|known| number(*known) == *protocol).map(Match::Protocol);
    }
    match (key, u32::from_ne_bytes(value.try_into().ok()?)) {
        (MetaKey::Iif, LOOPBACK_IFINDEX) => Some(Match::FromLoopback),
        (MetaKey::Oif, LOOPBACK_IFINDEX) => Some(Match::ToLoopback),
        (MetaKey::SocketUserId, uid) => Some(Match::Uid(uid)),
        (MetaKey::Mark, mark) => Some(Match::Mark(mark)),
        _ => None,
    }
}

fn network(offset: u32, address: &[u8], mask: &[u8]) -> Option<Match> {
    let length = u8::try_from(mask.iter().map(|octet| octet.leading_ones()).sum::<u32>()).ok()?;
    let address = match offset {
        IPV4_DESTINATION => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        IPV6_DESTINATION => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
        _ => return None,
    };
    IpNet::new(address, length).ok().map(Match::To)
}

fn packet(attributes: &[Payload]) -> Option<Register> {
    let (mut header, mut offset, mut length) = (None, None, None);
    for attribute in attributes {
        match attribute {
            Payload::Base(base) => header = Some(*base),
            Payload::Offset(octets) => offset = Some(*octets),
            Payload::Len(octets) => length = Some(*octets),
            _ => {}
        }
    }
    Some(Register::Packet { header: header?, offset: offset?, length: length? })
}

fn immediate(attributes: &[Immediate]) -> Option<&DataAttribute> {
    attributes.iter().find_map(|attribute| match attribute {
        Immediate::Data(data) => Some(data),
        _ => None,
    })
}

fn verdict(attributes: &[VerdictAttribute]) -> Option<Verdict> {
    let code = attributes.iter().find_map(|attribute| match attribute {
        VerdictAttribute::Code(code) => Some(u32::from(*code)),
        _ => None,
    })?;
    match code {
        NF_ACCEPT => Some(Verdict::Accept),
        NF_DROP => Some(Verdict::Drop),
        _ => None,
    }
}

fn content(expression: &Expression) -> Option<&Expressions> {
    let ListAttribute::Element(attributes) = expression else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(content) => Some(content),
        _ => None,
    })
}

fn name(expression: &Expressions) -> String {
    let ListAttribute::Element(attributes) = Expression::from(expression.clone()) else {
        return String::new();
    };
    let name = attributes.into_iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Name(name) => Some(name),
        _ => None,
    });
    name.unwrap_or_default()
}

fn be32(attributes: &[DefaultNla], kind: u16) -> Option<u32> {
    value(attributes, kind).map(u32::from_be_bytes)
}

fn value<const N: usize>(attributes: &[DefaultNla], kind: u16) -> Option<[u8; N]> {
    let attribute = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut octets = [0; N];
    if attribute.value_len() != N {
        return None;
    }
    attribute.emit_value(&mut octets);
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::{
        expressions,
        plan::{Datagrams, Plan, Redirection, Spare},
    };

    #[test]
    fn every_rule_reads_as_it_was_written() {
        let plan = |spare| {
            Plan::new(&Redirection {
                spare,
                excluded_inbound_ports: vec![22],
                excluded_outbound_ports: vec![443],
                excluded_outbound_cidrs: vec!["10.0.0.0/9".parse().unwrap(), "::/0".parse().unwrap()],
                datagrams: Datagrams::Deny {
                    dns_resolvers: vec!["10.96.0.10".parse().unwrap(), "fd77::53".parse().unwrap()],
                    udp_ports: vec![5000],
                },
            })
        };

        for rule in [Spare::Uid(2112), Spare::Mark(7)]
            .map(plan)
            .iter()
            .flat_map(|plan| &plan.chains)
            .flat_map(|chain| &chain.rules)
        {
            let reading = of(&expressions::of(rule));

            assert_eq!((&reading.matches, reading.verdict), (&rule.matches, Some(rule.verdict)));
            assert_eq!(reading.packets, rule.counted.map(|_| 0));
            assert!(reading.unknown.is_empty(), "{:?}", reading.unknown);
        }
    }

    #[test]
    fn a_label_is_read_from_a_comment_only() {
        assert_eq!(label(b"\0\x04abc\0").as_deref(), Some("abc"));
        assert_eq!(label(b""), None);
        assert_eq!(label(b"\x01\x04abc\0"), None);
    }
}
