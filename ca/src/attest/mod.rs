//! Who asks? Evidence becomes an identity, or an error. Names in a certificate request play no part.
//!
//! - `service_account`, `oidc`: a signed token, by its issuer's rules; `keys`: the issuer's keys, live; `seen`: which tokens
//!   verified before
//! - `review`, `kubernetes`: the API server's word on such a token and its pod
//! - `join`: single-use tokens; `joined`: who came by one, and renews by its certificate; `listing`: both, for operators
//!
//! Knows not what is signed (`authority`), nor the wire (`issue`). Another kind of evidence is another variant here.

mod error;
mod join;
mod joined;
mod keys;
mod kubernetes;
mod listing;
mod oidc;
mod review;
mod seen;
mod service_account;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use douane_proto::{
    id::{IdError, TrustDomain, WorkloadId},
    jwt::{JwtError, Keys, MAX_TOKEN_BYTES},
};
use zeroize::Zeroizing;

use crate::{
    config::{IdentityRule, User},
    peer::{Origin, Peer},
    state::StateFolder,
};
use join::{JoinTokens, Ticket};
use joined::{Joined, Renewal};
use review::Binding;
use seen::Seen;
use service_account::{Demanded, ServiceAccounts};

pub use error::AttestError;
pub use join::{CreateError, create as create_join_token};
pub use keys::{KeySource, LiveKeys};
pub use listing::{Listed, Standing, list, revoke};
pub use review::{ReviewError, Reviewer};

/// Evidence that is bound to a pod.
const SERVICE_ACCOUNT_TOKEN: &str = "service_account_token";

/// What a caller presents. Wiped when dropped, and has no `Debug`: a token must not reach a log.
pub enum Evidence {
    /// A signed token (JWT): a projected Kubernetes service account token, or one of a configured issuer.
    Token(Zeroizing<String>),
    /// A single-use join token.
    JoinToken(Zeroizing<String>),
    /// Nothing but the connection itself: its certificate, or the process at its other end.
    Connection,
}

impl Evidence {
    /// A fixed word for the log.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::JoinToken(_) => "join_token",
            Self::Connection => "connection",
        }
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Token(token) | Self::JoinToken(token) => token.len(),
            Self::Connection => 0,
        }
    }

    /// Refuses what cannot be evidence by its mere shape, before it costs time.
    ///
    /// # Errors
    /// As [`Attestor::attest`] would.
    pub fn refuse_misshapen(&self) -> Result<(), AttestError> {
        match self {
            Self::Token(token) if token.len() > MAX_TOKEN_BYTES || token.split('.').count() != 3 => {
                Err(JwtError::Malformed.into())
            }
            Self::JoinToken(token) if !join::is_shaped(token) => Err(AttestError::UnknownJoinToken),
            _ => Ok(()),
        }
    }
}

/// Turns evidence into identities of one trust domain.
pub struct Attestor {
    trust_domain: TrustDomain,
    issuers: Vec<Issuer>,
    join: JoinTokens,
    joined: Arc<Joined>,
    users: HashMap<u32, WorkloadId>,
    reviewer: Option<Reviewer>,
    /// The control plane's own identity, which nobody else gets.
    reserved: WorkloadId,
}

struct Issuer {
    accounts: Accounts,
    keys: Arc<LiveKeys>,
    seen: Seen,
}

enum Accounts {
    Kubernetes(ServiceAccounts),
    Mapped(oidc::Accounts),
}

/// What the evidence proved.
#[derive(Debug)]
pub struct Attested {
    /// Who asks.
    pub id: WorkloadId,
    /// Which kind of evidence, for the audit log and metrics.
    pub evidence: &'static str,
    /// What the evidence is bound to, for the audit log: a pod, a subject, a registration, a user.
    pub bound_to: Option<String>,
    /// What the API server must confirm before anything is signed.
    binding: Option<Binding>,
    debt: Debt,
}

// What must happen before a certificate leaves.
#[derive(Debug)]
enum Debt {
    None,
    Spend(Ticket, Arc<Joined>),
    Renew(Renewal),
}

/// How the tokens of one issuer are verified.
pub struct TokenRules {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// The keys that sign them.
    pub keys: Arc<LiveKeys>,
    /// Whose identities they prove.
    pub meaning: Meaning,
}

/// Whose identities tokens prove.
pub enum Meaning {
    /// Kubernetes service accounts, by the claims that Kubernetes writes.
    ServiceAccounts,
    /// Whom these rules say.
    Mapped(Vec<IdentityRule>),
}

impl Attestor {
    /// Without `rules`, only join tokens are accepted.
    #[must_use]
    pub fn new(
        state: &StateFolder,
        trust_domain: &TrustDomain,
        reserved: WorkloadId,
        rules: Vec<TokenRules>,
    ) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            issuers: rules.into_iter().map(|rules| Issuer::new(rules, trust_domain)).collect(),
            join: JoinTokens::new(state, trust_domain.clone()),
            joined: Arc::new(Joined::new(state, trust_domain.clone())),
            users: HashMap::new(),
            reviewer: None,
            reserved,
        }
    }

    /// Processes of these users have these identities.
    ///
    /// # Errors
    /// When a name is none.
    pub fn with_users(mut self, users: &[User]) -> Result<Self, IdError> {
        for user in users {
            let id = WorkloadId::new(&self.trust_domain, &user.namespace, &user.service_account)?;
            self.users.insert(user.uid, id);
        }
        Ok(self)
    }

    /// Tokens of service accounts count only if they are bound to a pod, and `reviewer` confirms them ([`Self::confirm`]).
    #[must_use]
    pub fn with_review(mut self, reviewer: Reviewer) -> Self {
        self.reviewer = Some(reviewer);
        for issuer in &mut self.issuers {
            if let Accounts::Kubernetes(accounts) = &mut issuer.accounts {
                accounts.binding = Demanded::Pod;
            }
        }
        self
    }

    /// May `evidence` need somebody else's word?
    #[must_use]
    pub fn asks_others(&self, evidence: &Evidence) -> bool {
        self.reviewer.is_some() && matches!(evidence, Evidence::Token(_))
    }

    /// Asks whoever must confirm what `evidence` has proved to us. Comes before anything is signed.
    ///
    /// # Errors
    /// [`AttestError::Review`].
    pub async fn confirm(&self, evidence: &Evidence, attested: &Attested) -> Result<(), AttestError> {
        match (&self.reviewer, evidence, &attested.binding) {
            (Some(reviewer), Evidence::Token(token), Some(binding)) => {
                Ok(reviewer.review(token, binding).await?)
            }
            _ => Ok(()),
        }
    }

    /// Who presents this, on the connection of `peer`? What can be used once is spent only by [`Attested::settle`]. May
    /// read small files.
    ///
    /// # Errors
    /// [`AttestError`]: why it proves nothing.
    pub fn attest(&self, evidence: &Evidence, peer: &Peer, now: SystemTime) -> Result<Attested, AttestError> {
        let attested = match evidence {
            Evidence::Token(token) => self.by_token(token, unix(now))?,
            Evidence::JoinToken(token) => {
                let (id, ticket) = self.join.find(token, unix(now))?;
                let bound_to = Some(ticket.name());
                let debt = Debt::Spend(ticket, Arc::clone(&self.joined));
                Attested { id, evidence: "join_token", bound_to, binding: None, debt }
            }
            Evidence::Connection => self.by_connection(peer)?,
        };
        if attested.id == self.reserved {
            return Err(AttestError::Reserved);
        }
        Ok(attested)
    }

    /// Forgets join tokens that expired unused, and registrations that ended long ago.
    pub fn sweep(&self, now: SystemTime) {
        self.join.sweep(unix(now));
        self.joined.sweep(unix(now));
    }

    fn by_connection(&self, peer: &Peer) -> Result<Attested, AttestError> {
        if let Origin::Process { uid, .. } = peer.from {
            let id = self.users.get(&uid).ok_or(AttestError::UnknownUser(uid))?.clone();
            let bound_to = Some(format!("uid {uid}"));
            return Ok(Attested { id, evidence: "unix", bound_to, binding: None, debt: Debt::None });
        }
        let (Some(id), Some(shown)) = (&peer.id, &peer.certificate) else {
            return Err(AttestError::NoEvidence);
        };
        let renewal = self.joined.find(id, &shown.serial)?;
        let bound_to = Some(renewal.name());
        let debt = Debt::Renew(renewal);
        Ok(Attested { id: id.clone(), evidence: "renewal", bound_to, binding: None, debt })
    }

    fn by_token(&self, token: &str, now: u64) -> Result<Attested, AttestError> {
        let issuer = self.issuer_of(token)?;
        let known = issuer.keys.current().ok_or(AttestError::NoKeys)?;
        issuer.verify(token, &known, now).inspect_err(|error| {
            // Perhaps the issuer has a new key that we have not read yet: the next try may find it.
            if matches!(error, AttestError::Token(JwtError::UnknownKey)) {
                issuer.keys.ask_refresh();
            }
        })
    }

    // What a token says of its issuer before it is verified only chooses the rules that it is held against.
    fn issuer_of(&self, token: &str) -> Result<&Issuer, AttestError> {
        let (first, more) = self.issuers.split_first().ok_or(AttestError::NotConfigured)?;
        if more.is_empty() {
            return Ok(first);
        }
        let named = douane_proto::jwt::unverified_issuer(token).ok_or(JwtError::Malformed)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.name() == named);
        Ok(issuer.ok_or(JwtError::Issuer)?)
    }
}

impl Issuer {
    fn new(rules: TokenRules, trust_domain: &TrustDomain) -> Self {
        let TokenRules { issuer, audience, keys, meaning } = rules;
        let (audiences, trust_domain) = (vec![audience], trust_domain.clone());
        let accounts = match meaning {
            Meaning::ServiceAccounts => {
                let binding = Demanded::Nothing;
                Accounts::Kubernetes(ServiceAccounts { issuer, audiences, trust_domain, binding })
            }
            Meaning::Mapped(identities) => {
                Accounts::Mapped(oidc::Accounts { issuer, audiences, identities, trust_domain })
            }
        };
        Self { accounts, keys, seen: Seen::default() }
    }

    fn name(&self) -> &str {
        match &self.accounts {
            Accounts::Kubernetes(accounts) => &accounts.issuer,
            Accounts::Mapped(accounts) => &accounts.issuer,
        }
    }

    fn verify(&self, token: &str, keys: &Arc<Keys>, now: u64) -> Result<Attested, AttestError> {
        let (id, bound_to, binding, evidence) = match &self.accounts {
            Accounts::Kubernetes(accounts) => {
                let account =
                    accounts.account(&self.seen.verify(token, keys, accounts.expected(), now)?)?;
                (account.id, account.pod, account.binding, SERVICE_ACCOUNT_TOKEN)
            }
            Accounts::Mapped(accounts) => {
                let (id, subject) =
                    accounts.account(&self.seen.verify(token, keys, accounts.expected(), now)?)?;
                (id, subject, None, "oidc_token")
            }
        };
        Ok(Attested { id, evidence, bound_to, binding, debt: Debt::None })
    }
}

impl Attested {
    /// The pod that a service account token is bound to.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        self.bound_to.as_deref().filter(|_| self.evidence == SERVICE_ACCOUNT_TOKEN)
    }

    /// Must come before the certificate (its serial number, and when it ends) leaves: spends what can be used once, and
    /// remembers who may renew by it. Waits for the disk.
    ///
    /// # Errors
    /// [`AttestError`] when somebody else was faster, or the disk failed.
    pub fn settle(&self, certificate: (&str, i64), now: SystemTime) -> Result<(), AttestError> {
        match &self.debt {
            Debt::None => Ok(()),
            Debt::Spend(ticket, joined) => {
                ticket.spend()?;
                joined.register(ticket.registration(), &self.id, certificate, unix(now))
            }
            Debt::Renew(renewal) => renewal.settle(certificate),
        }
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
