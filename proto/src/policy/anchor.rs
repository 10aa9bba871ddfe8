//! What must be exactly so for a rule to hold, as keys for the index.

use std::ops::ControlFlow;

use super::{attribute::Attribute, clause::Clause, matcher::Matcher, pattern::Pattern, rule::Rule};

/// One way to anchor a rule: it holds only for requests that have one of the keys.
#[derive(Debug)]
pub(super) struct Anchor {
    pub(super) keys: Vec<AnchorKey>,
    /// Only a request has such keys.
    pub(super) is_of_request: bool,
}

/// A key of an anchor.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnchorKey {
    pub(super) hash: u64,
    /// It is the hash of the first so many bytes of a path.
    pub(super) prefix: Option<usize>,
}

/// What a key is made of. Each has its own beginning of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Principal = 1,
    Account,
    Namespace,
    Port,
    Token,
    Path,
    PathPrefix,
    Host,
    Method,
}

/// All ways to anchor the rule.
pub(super) fn of_rule(rule: &Rule) -> Vec<Anchor> {
    let families: [fn(&Attribute) -> bool; 6] = [
        |attribute| {
            matches!(attribute, Attribute::Principal | Attribute::Namespace | Attribute::ServiceAccount)
        },
        |attribute| *attribute == Attribute::RequestPrincipal,
        |attribute| *attribute == Attribute::Path,
        |attribute| *attribute == Attribute::Host,
        |attribute| *attribute == Attribute::DestinationPort,
        |attribute| *attribute == Attribute::Method,
    ];
    let mut anchors = Vec::new();
    for family in families {
        for entries in [&rule.from, &rule.to] {
            anchors.extend(of_entries(entries, family));
        }
        let conditions = rule.when.iter().filter(|clause| family(&clause.attribute));
        anchors.extend(conditions.filter_map(of_clause));
    }
    anchors
}

// One of the entries must hold: each needs a field of the family.
fn of_entries(entries: &[Vec<Clause>], family: fn(&Attribute) -> bool) -> Option<Anchor> {
    let of_entry =
        |clauses: &Vec<Clause>| clauses.iter().filter(|clause| family(&clause.attribute)).find_map(of_clause);
    let anchors: Vec<Anchor> = entries.iter().map(of_entry).collect::<Option<_>>()?;
    let is_of_request = anchors.first()?.is_of_request;
    Some(Anchor { keys: anchors.into_iter().flat_map(|anchor| anchor.keys).collect(), is_of_request })
}

fn of_clause(clause: &Clause) -> Option<Anchor> {
    if clause.any_of.is_empty() {
        return None;
    }
    let matchers = clause.any_of.matchers.iter().filter(|matcher| **matcher != Matcher::Never);
    let keys = matchers.map(|matcher| key(&clause.attribute, matcher)).collect::<Option<_>>()?;
    Some(Anchor { keys, is_of_request: clause.attribute.is_http() })
}

fn key(attribute: &Attribute, matcher: &Matcher) -> Option<AnchorKey> {
    let whole = |class, pieces: &[&str]| AnchorKey { hash: hash(class, pieces), prefix: None };
    Some(match (attribute, matcher) {
        (Attribute::Principal, Matcher::Text(pattern)) => return principal(pattern),
        (Attribute::Namespace, Matcher::Glob(glob)) => whole(Class::Namespace, &[glob.exact()?]),
        (Attribute::ServiceAccount, Matcher::Account { namespace, name }) => {
            whole(Class::Account, &[namespace, "/", name])
        }
        (Attribute::RequestPrincipal, Matcher::Token { issuer, subject }) => match (issuer, subject) {
            (Pattern::Exact(issuer), Pattern::Exact(subject)) => {
                whole(Class::Token, &[issuer, "\0", subject])
            }
            _ => return None,
        },
        (Attribute::DestinationPort, Matcher::Port(port)) => {
            AnchorKey { hash: hash_port(*port), prefix: None }
        }
        (Attribute::Path, Matcher::Text(Pattern::Exact(path))) => {
            AnchorKey { hash: hash_path(path, |_, _| ControlFlow::Break(())), prefix: None }
        }
        (Attribute::Path, Matcher::Text(Pattern::Prefix(beginning))) => path_prefix(beginning),
        (Attribute::Path, Matcher::Template(template)) => path_prefix(&template.beginning()),
        (Attribute::Host, Matcher::Text(Pattern::Exact(host))) => {
            AnchorKey { hash: hash_host(host), prefix: None }
        }
        (Attribute::Method, Matcher::Text(Pattern::Exact(method))) => whole(Class::Method, &[method]),
        _ => return None,
    })
}

// Also of a beginning that holds a whole namespace, and of an end that holds a whole account.
fn principal(pattern: &Pattern) -> Option<AnchorKey> {
    let whole = |class, pieces: &[&str]| AnchorKey { hash: hash(class, pieces), prefix: None };
    match pattern {
        Pattern::Exact(text) => Some(whole(Class::Principal, &[text])),
        Pattern::Prefix(text) => {
            let mut parts = text.split('/').skip(1);
            let (Some("ns"), Some(namespace), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
                return None;
            };
            Some(whole(Class::Namespace, &[namespace]))
        }
        Pattern::Suffix(text) => {
            let mut parts = text.rsplit('/');
            let (Some(account), Some("sa"), Some(namespace), Some("ns"), Some(_)) =
                (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return None;
            };
            Some(whole(Class::Account, &[namespace, "/", account]))
        }
        Pattern::Present => None,
    }
}

fn path_prefix(beginning: &str) -> AnchorKey {
    let mut hash = Hash::new(Class::PathPrefix);
    let mut escape = Escape::default();
    beginning.bytes().for_each(|byte| hash.take(escape.fold(byte)));
    AnchorKey { hash: hash.end(), prefix: Some(beginning.len()) }
}

/// The key of a text that comes in pieces.
pub(super) fn hash(class: Class, pieces: &[&str]) -> u64 {
    let mut hash = Hash::new(class);
    pieces.iter().flat_map(|piece| piece.bytes()).for_each(|byte| hash.take(byte));
    hash.end()
}

/// The key of a port.
pub(super) fn hash_port(port: u16) -> u64 {
    let mut hash = Hash::new(Class::Port);
    port.to_be_bytes().into_iter().for_each(|byte| hash.take(byte));
    hash.end()
}

/// The key of a host, which has no case.
pub(super) fn hash_host(host: &str) -> u64 {
    let mut hash = Hash::new(Class::Host);
    host.bytes().for_each(|byte| hash.take(byte.to_ascii_lowercase()));
    hash.end()
}

/// The key of a whole path; `prefix` is shown the key of each beginning of it, with its length, until it breaks off.
pub(super) fn hash_path(path: &str, mut prefix: impl FnMut(usize, u64) -> ControlFlow<()>) -> u64 {
    let (mut whole, mut beginning) = (Hash::new(Class::Path), Hash::new(Class::PathPrefix));
    let mut escape = Escape::default();
    let mut goes_on = prefix(0, beginning.end()).is_continue();
    for (index, byte) in path.bytes().enumerate() {
        let byte = escape.fold(byte);
        whole.take(byte);
        if goes_on {
            beginning.take(byte);
            goes_on = prefix(index + 1, beginning.end()).is_continue();
        }
    }
    whole.end()
}

// FNV-1a, 64 bits: one byte at a time, so that each beginning of a path has its hash on the way.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn new(class: Class) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.take(class as u8);
        hash
    }

    fn take(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    // Its high bits are weak, and a table needs them as well.
    fn end(self) -> u64 {
        (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

// The hexadecimal digits of an escape have no case.
#[derive(Default)]
struct Escape {
    digits: u8,
}

impl Escape {
    fn fold(&mut self, byte: u8) -> u8 {
        match (byte, self.digits) {
            (b'%', _) => {
                self.digits = 2;
                byte
            }
            (_, 0) => byte,
            (_, digits) => {
                self.digits = digits - 1;
                byte.to_ascii_uppercase()
            }
        }
    }
}
