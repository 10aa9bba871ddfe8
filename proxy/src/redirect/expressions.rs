//! One rule in the kernel's own language: a list of nf_tables expressions that load a value into a register, compare
//! it, and end in a verdict. Pure; `transaction` sends them. Values from packets are in network order, values from
//! the kernel itself (interface, uid, mark, conntrack) in the machine's.

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta, MetaKey,
    Operator, Payload, Register, RuleAttribute, Verdict as Code, VerdictAttribute,
};

use crate::redirect::rules::{Match, Protocol, Rule, Verdict};

/// A list element that holds one expression.
pub(crate) type Expression = ListAttribute<ExpressionAttribute>;

/// The rule's conditions, its counter and its verdict, in order.
pub(crate) fn of(rule: &Rule) -> Vec<Expression> {
    let conditions = rule.matches.iter().flat_map(|condition| conditions(*condition));
    let counter = rule.counted.map(|_| counter());
    conditions.chain(counter).chain(verdict(rule.verdict)).map(Expression::from).collect()
}

/// The counter's label, as a comment that `nft` shows.
pub(crate) fn comment(label: &str) -> RuleAttribute {
    let mut octets = label.as_bytes().to_vec();
    octets.push(0);
    let length = u8::try_from(octets.len()).unwrap_or(u8::MAX);
    octets.splice(0..0, [NFTNL_UDATA_RULE_COMMENT, length]);
    RuleAttribute::UserData(octets)
}

/// The label in a rule's comment.
pub(crate) fn label(userdata: &[u8]) -> Option<String> {
    let [NFTNL_UDATA_RULE_COMMENT, _, text @ .., 0] = userdata else { return None };
    String::from_utf8(text.to_vec()).ok()
}

/// How many packets a counter saw; `None` for any other expression.
pub(crate) fn packets(expression: &Expression) -> Option<u64> {
    let ListAttribute::Element(attributes) = expression else { return None };
    let counters = attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(Expressions::Other { expression_type, attributes })
            if expression_type == COUNTER =>
        {
            Some(attributes)
        }
        _ => None,
    })?;
    let packets = counters.iter().find(|attribute| attribute.kind() == NFTA_COUNTER_PACKETS)?;
    let mut octets = [0; size_of::<u64>()];
    if packets.value_len() != octets.len() {
        return None;
    }
    packets.emit_value(&mut octets);
    Some(u64::from_be_bytes(octets))
}

fn conditions(condition: Match) -> Vec<Expressions> {
    match condition {
        Match::Protocol(protocol) => vec![load_meta(MetaKey::L4Proto), equals([number(protocol)])],
        Match::Port(port) => {
            vec![load_packet(TRANSPORT_HEADER, DESTINATION_PORT, 2), equals(port.to_be_bytes())]
        }
        Match::To(net) => destination_in(net),
        Match::ToLocalAddress => vec![load_destination_type(), equals(RTN_LOCAL.to_ne_bytes())],
        Match::FromLoopback => vec![load_meta(MetaKey::Iif), equals(LOOPBACK_IFINDEX.to_ne_bytes())],
        Match::ToLoopback => vec![load_meta(MetaKey::Oif), equals(LOOPBACK_IFINDEX.to_ne_bytes())],
        Match::Uid(uid) => vec![load_meta(MetaKey::SocketUserId), equals(uid.to_ne_bytes())],
        Match::Mark(mark) => vec![load_meta(MetaKey::Mark), equals(mark.to_ne_bytes())],
        Match::Established => has_bit(CT_STATE, CT_STATE_ESTABLISHED),
        Match::Rewritten => has_bit(CT_STATUS, IPS_DST_NAT),
    }
}

fn verdict(verdict: Verdict) -> Vec<Expressions> {
    match verdict {
        Verdict::Accept => vec![decide(NF_ACCEPT)],
        Verdict::Drop => vec![decide(NF_DROP)],
        Verdict::RedirectTo(port) => vec![
            Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Reg1),
                Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
            ]),
            other("redir", vec![be32(NFTA_REDIR_REG_PROTO_MIN, Register::Reg1.into())]),
        ],
    }
}

fn destination_in(net: IpNet) -> Vec<Expressions> {
    let (family, offset, network, mask) = match net {
        IpNet::V4(net) => {
            (NFPROTO_IPV4, IPV4_DESTINATION, net.network().octets().to_vec(), net.netmask().octets().to_vec())
        }
        IpNet::V6(net) => {
            (NFPROTO_IPV6, IPV6_DESTINATION, net.network().octets().to_vec(), net.netmask().octets().to_vec())
        }
    };
    let length = network.len();
    let whole = net.prefix_len() == net.max_prefix_len();
    let mut steps =
        vec![load_meta(MetaKey::Nfproto), equals([family]), load_packet(NETWORK_HEADER, offset, length)];
    steps.extend((!whole).then(|| masked(length, mask)));
    steps.push(equals(network));
    steps
}

fn has_bit(key: u32, bit: u32) -> Vec<Expressions> {
    let load = other("ct", vec![be32(NFTA_CT_DREG, Register::Reg1.into()), be32(NFTA_CT_KEY, key)]);
    let is_set = compare(Operator::NotEqual, 0_u32.to_ne_bytes().to_vec());
    vec![load, masked(size_of::<u32>(), bit.to_ne_bytes().to_vec()), is_set]
}

fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)])
}

fn load_packet(header: u32, offset: u32, length: usize) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(header),
        Payload::Offset(offset),
        Payload::Len(octets(length)),
    ])
}

fn load_destination_type() -> Expressions {
    let attributes = vec![
        be32(NFTA_FIB_DREG, Register::Reg1.into()),
        be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
        be32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR),
    ];
    other("fib", attributes)
}

fn masked(length: usize, mask: Vec<u8>) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(octets(length)),
        Bitwise::Mask(DataAttribute::Value(mask)),
        Bitwise::Xor(DataAttribute::Value(vec![0; length])),
    ])
}

fn equals(value: impl Into<Vec<u8>>) -> Expressions {
    compare(Operator::Equal, value.into())
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn counter() -> Expressions {
    let zero = |kind| DefaultNla::new(kind, 0_u64.to_be_bytes().to_vec());
    other(COUNTER, vec![zero(NFTA_COUNTER_BYTES), zero(NFTA_COUNTER_PACKETS)])
}

fn decide(code: u32) -> Expressions {
    let verdict = vec![VerdictAttribute::Code(Code::Other(code))];
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ])
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other { expression_type: name.to_owned(), attributes }
}

fn be32(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Dccp => 33,
        Protocol::Sctp => 132,
        Protocol::UdpLite => 136,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an address has at most 16 octets")]
const fn octets(length: usize) -> u32 {
    length as u32
}

// linux/netfilter.h
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
// linux/netfilter/nf_tables.h: payload bases, then the attributes of expressions that the crate has no type for.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
// libnftnl's udata.h
const NFTNL_UDATA_RULE_COMMENT: u8 = 0;
const COUNTER: &str = "counter";
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 1 << 1;
// linux/netfilter/nf_conntrack_common.h
const CT_STATE_ESTABLISHED: u32 = 1 << 1;
const IPS_DST_NAT: u32 = 1 << 5;
// linux/rtnetlink.h; the loopback interface is the first of every network namespace.
const RTN_LOCAL: u32 = 2;
const LOOPBACK_IFINDEX: u32 = 1;
// Offsets in octets: RFC 791, RFC 8200; TCP, UDP, SCTP and DCCP all put the destination port second.
const IPV4_DESTINATION: u32 = 16;
const IPV6_DESTINATION: u32 = 24;
const DESTINATION_PORT: u32 = 2;
