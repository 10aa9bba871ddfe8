//! One rule in the kernel's own language: a list of nf_tables expressions that load a value into a register, compare
//! it, and end in a verdict. Pure; `transaction` sends them, `reading` is the way back. Values from packets are in network order, values from
//! the kernel itself (interface, uid, mark, conntrack) in the machine's.

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Meta, MetaKey,
    Operator, Payload, Register, RuleAttribute, Verdict as Code, VerdictAttribute,
};

use crate::redirect::{
    kernel::{
        CONNTRACK, COUNTER, CT_STATE, CT_STATE_ESTABLISHED, CT_STATUS, DESTINATION_PORT, FIB, IPS_DST_NAT,
        IPV4_DESTINATION, IPV6_DESTINATION, LOOPBACK_IFINDEX, NETWORK_HEADER, NF_ACCEPT, NF_DROP,
        NFPROTO_IPV4, NFPROTO_IPV6, NFT_FIB_RESULT_ADDRTYPE, NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS,
        NFTA_CT_DREG, NFTA_CT_KEY, NFTA_FIB_DREG, NFTA_FIB_F_DADDR, NFTA_FIB_FLAGS, NFTA_FIB_RESULT,
        NFTA_REDIR_REG_PROTO_MIN, NFTNL_UDATA_RULE_COMMENT, REDIRECT, RTN_LOCAL, TRANSPORT_HEADER, number,
    },
    rules::{Match, Rule, Verdict},
};

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
            other(REDIRECT, vec![be32(NFTA_REDIR_REG_PROTO_MIN, Register::Reg1.into())]),
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
    let load = other(CONNTRACK, vec![be32(NFTA_CT_DREG, Register::Reg1.into()), be32(NFTA_CT_KEY, key)]);
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
    other(FIB, attributes)
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

#[expect(clippy::cast_possible_truncation, reason = "an address has at most 16 octets")]
const fn octets(length: usize) -> u32 {
    length as u32
}
