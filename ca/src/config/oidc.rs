//! `oidc`: issuers whose tokens prove identities, and which; `unix`: processes of this machine that do.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Deserializer, de::Error as _};

/// An issuer whose tokens prove identities.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Oidc {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`.
    #[serde(default = "super::default_audience")]
    pub audience: String,
    /// A JSON Web Key Set: a file, or an `http` or `https` URL.
    pub jwks: String,
    /// PEM certificates that vouch for an `https` URL.
    #[serde(default)]
    pub jwks_trust: Option<PathBuf>,
    /// Who a token is, by the first rule that takes it; whom none takes gets nothing.
    #[serde(deserialize_with = "some_rules")]
    pub identities: Vec<IdentityRule>,
}

/// Tokens with these claims are of this identity.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IdentityRule {
    /// Claim -> values of which it must have one. Dots lead into claims of claims; a list has what one of its items is.
    #[serde(rename = "where", default, deserialize_with = "conditions")]
    pub conditions: BTreeMap<String, Vec<String>>,
    /// The namespace: a name, in which one claim may be filled in, as `{claim}`.
    pub namespace: ClaimName,
    /// The service account, likewise.
    pub service_account: ClaimName,
}

/// A name, or one that a claim is filled into: one only, so that two tokens never make one name of different parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimName {
    /// As it stands.
    Fixed(String),
    /// `before{claim}after`.
    Filled {
        /// What stands before.
        before: String,
        /// The claim.
        claim: String,
        /// What stands after.
        after: String,
    },
}

/// Processes of this machine that prove who they are by their user, whom the kernel vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Unix {
    /// The socket that they connect to.
    pub socket: PathBuf,
    /// Who they are.
    #[serde(deserialize_with = "some_users")]
    pub identities: Vec<User>,
}

/// Processes of this user are of this identity.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
}

/// The kernel says this of users whom it cannot tell apart: those of another user namespace.
const NOBODY: u32 = 65_534;

impl<'de> Deserialize<'de> for ClaimName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong =
            || D::Error::custom(format!("{text:?}: at most one claim, as {{claim}}, may be filled in"));
        let Some((before, rest)) = text.split_once('{') else {
            return if text.contains('}') { Err(wrong()) } else { Ok(Self::Fixed(text)) };
        };
        let (claim, after) = rest.split_once('}').ok_or_else(wrong)?;
        if claim.is_empty() || [before, claim, after].iter().any(|part| part.contains(['{', '}'])) {
            return Err(wrong());
        }
        Ok(Self::Filled { before: before.to_owned(), claim: claim.to_owned(), after: after.to_owned() })
    }
}

fn some_rules<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IdentityRule>, D::Error> {
    let rules = Vec::<IdentityRule>::deserialize(from)?;
    // An issuer that many share (of a forge, say) would prove the identity for anybody who can run anything there.
    if rules.iter().any(|rule| rule.conditions.is_empty()) {
        return Err(D::Error::custom(
            "each identity needs a condition (`where`): any token of the issuer would be it",
        ));
    }
    Ok(rules)
}

fn some_users<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<User>, D::Error> {
    let users = Vec::<User>::deserialize(from)?;
    for (index, user) in users.iter().enumerate() {
        if user.uid == NOBODY {
            return Err(D::Error::custom(format!(
                "the user {NOBODY} is nobody in particular: it proves nothing"
            )));
        }
        if users.iter().take(index).any(|other| other.uid == user.uid) {
            return Err(D::Error::custom(format!("the user {} stands here twice", user.uid)));
        }
    }
    Ok(users)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn conditions<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let read = BTreeMap::<String, OneOrMore>::deserialize(from)?;
    let values = |value| match value {
        OneOrMore::One(one) => vec![one],
        OneOrMore::More(more) => more,
    };
    Ok(read.into_iter().map(|(claim, value)| (claim, values(value))).collect())
}
