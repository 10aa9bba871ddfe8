//! Who asks? Evidence becomes an identity, or an error. Names in a certificate request play no part.
//!
//! Knows not what is signed (`authority`), nor the wire (`issue`). Another kind of evidence is another variant here.

mod error;
mod join;
mod keys;
mod service_account;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use douane_proto::id::{TrustDomain, WorkloadId};
use zeroize::Zeroizing;

use crate::state::StateFolder;
use join::{JoinTokens, Ticket};
use service_account::ServiceAccounts;

pub use error::AttestError;
pub use join::{CreateError, create as create_join_token};
pub use keys::{KeySource, LiveKeys};

/// What a caller presents. Wiped when dropped, and has no `Debug`: a token must not reach a log.
pub enum Evidence {
    /// A signed token (JWT): a projected Kubernetes service account token.
    Token(Zeroizing<String>),
    /// A single-use join token.
    JoinToken(Zeroizing<String>),
    /// Nothing but the connection itself.
    Connection,
}

impl Evidence {
    /// A fixed word for logs and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "service_account_token",
            Self::JoinToken(_) => "join_token",
            Self::Connection => "none",
        }
    }
}

/// Turns evidence into identities of one trust domain.
pub struct Attestor {
    tokens: Option<(ServiceAccounts, Arc<LiveKeys>)>,
    join: JoinTokens,
    /// The control plane's own identity, which nobody else gets.
    reserved: WorkloadId,
}

/// What the evidence proved.
#[derive(Debug)]
pub struct Attested {
    /// Who asks.
    pub id: WorkloadId,
    /// Which kind of evidence, for the audit log.
    pub evidence: &'static str,
    /// The pod that a token is bound to, for the audit log.
    pub pod: Option<String>,
    ticket: Option<Ticket>,
}

/// How service account tokens are verified.
pub struct TokenRules {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// The keys that sign them.
    pub keys: Arc<LiveKeys>,
}

impl Attestor {
    /// Without `tokens`, only join tokens are accepted.
    #[must_use]
    pub fn new(
        state: &StateFolder,
        trust_domain: &TrustDomain,
        reserved: WorkloadId,
        tokens: Option<TokenRules>,
    ) -> Self {
        let tokens = tokens.map(|rules| {
            let accounts = ServiceAccounts {
                issuer: rules.issuer,
                audiences: vec![rules.audience],
                trust_domain: trust_domain.clone(),
            };
            (accounts, rules.keys)
        });
        Self { tokens, join: JoinTokens::new(state, trust_domain.clone()), reserved }
    }

    /// Who presents this? A join token is spent only by [`Attested::spend`]. May read small files.
    ///
    /// # Errors
    /// [`AttestError`]: why it proves nothing.
    pub fn attest(&self, evidence: &Evidence, now: SystemTime) -> Result<Attested, AttestError> {
        let now = unix(now);
        let attested = match evidence {
            Evidence::Token(token) => self.by_token(token, now)?,
            Evidence::JoinToken(token) => {
                let (id, ticket) = self.join.find(token, now)?;
                Attested { id, evidence: "join_token", pod: None, ticket: Some(ticket) }
            }
            Evidence::Connection => return Err(AttestError::NoEvidence),
        };
        if attested.id == self.reserved {
            return Err(AttestError::Reserved);
        }
        Ok(attested)
    }

    /// Forgets join tokens that expired unused.
    pub fn sweep(&self, now: SystemTime) {
        self.join.sweep(unix(now));
    }

    fn by_token(&self, token: &str, now: u64) -> Result<Attested, AttestError> {
        let (accounts, keys) = self.tokens.as_ref().ok_or(AttestError::NotConfigured)?;
        let known = keys.current().ok_or(AttestError::NoKeys)?;
        let account = accounts.verify(token, &known, now).inspect_err(|error| {
            // Perhaps the issuer has a new key that we have not read yet: the next try may find it.
            if matches!(error, AttestError::Token(douane_proto::jwt::JwtError::UnknownKey)) {
                keys.ask_refresh();
            }
        })?;
        Ok(Attested { id: account.id, evidence: "service_account_token", pod: account.pod, ticket: None })
    }
}

impl Attested {
    /// Must come before the certificate leaves: spends what can be used once. Waits for the disk.
    ///
    /// # Errors
    /// [`AttestError`] when somebody else was faster, or the disk failed.
    pub fn spend(&self) -> Result<(), AttestError> {
        self.ticket.as_ref().map_or(Ok(()), Ticket::spend)
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
