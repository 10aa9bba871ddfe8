//! The kernel's numbers, which `expressions` writes and `reading` reads. A leaf.

use crate::redirect::rules::Protocol;

/// Protocol numbers, IANA.
pub(crate) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Dccp => 33,
        Protocol::Sctp => 132,
        Protocol::UdpLite => 136,
    }
}

// linux/netfilter.h
pub(crate) const NF_DROP: u32 = 0;
pub(crate) const NF_ACCEPT: u32 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_IPV6: u8 = 10;
// linux/netfilter/nf_tables.h: payload bases, then the attributes of expressions that the crate has no type for.
pub(crate) const NETWORK_HEADER: u32 = 1;
pub(crate) const TRANSPORT_HEADER: u32 = 2;
pub(crate) const CONNTRACK: &str = "ct";
pub(crate) const COUNTER: &str = "counter";
pub(crate) const FIB: &str = "fib";
pub(crate) const REDIRECT: &str = "redir";
pub(crate) const NFTA_CT_DREG: u16 = 1;
pub(crate) const NFTA_CT_KEY: u16 = 2;
pub(crate) const CT_STATE: u32 = 0;
pub(crate) const CT_STATUS: u32 = 2;
pub(crate) const NFTA_COUNTER_BYTES: u16 = 1;
pub(crate) const NFTA_COUNTER_PACKETS: u16 = 2;
pub(crate) const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
pub(crate) const NFTA_FIB_DREG: u16 = 1;
pub(crate) const NFTA_FIB_RESULT: u16 = 2;
pub(crate) const NFTA_FIB_FLAGS: u16 = 3;
pub(crate) const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub(crate) const NFTA_FIB_F_DADDR: u32 = 1 << 1;
// libnftnl's udata.h
pub(crate) const NFTNL_UDATA_RULE_COMMENT: u8 = 0;
// linux/netfilter/nf_conntrack_common.h
pub(crate) const CT_STATE_ESTABLISHED: u32 = 1 << 1;
pub(crate) const IPS_DST_NAT: u32 = 1 << 5;
// linux/rtnetlink.h; the loopback interface is the first of every network namespace.
pub(crate) const RTN_LOCAL: u32 = 2;
pub(crate) const LOOPBACK_IFINDEX: u32 = 1;
// Offsets in octets: RFC 791, RFC 8200; TCP, UDP, SCTP and DCCP all put the destination port second.
pub(crate) const IPV4_DESTINATION: u32 = 16;
pub(crate) const IPV6_DESTINATION: u32 = 24;
pub(crate) const DESTINATION_PORT: u32 = 2;
