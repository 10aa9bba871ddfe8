//! A workload's sidecar as far as its verdicts go: what it would do with a request, and why.
//!
//! The order of the wire: mutual TLS, then what the request says, then its tokens, then the policies. Each step is the
//! sidecar's own function; nothing is decided here.

use douane_proto::{
    authentication::TokenRefused,
    facts::{Facts, RequestFacts},
    law::Governing,
    mtls::{MtlsMode, MtlsModes, Proof},
    policy::{Answer, Answers, Decision, Permit, PolicyError, PolicySet, Trust, decide},
    request::{self, BadRequest, headers_of, method_of},
    target::PathNormalization,
};
use http::{Version, header};

use crate::policy::asked::{Asked, Head, Mesh, Verdict};

/// Each round asks everybody whom the decision names; more than a few never happen.
const MAX_ROUNDS: usize = 16;

/// What stands before a workload.
#[derive(Debug)]
pub struct Receiver {
    modes: MtlsModes,
    policies: PolicySet,
    normalization: PathNormalization,
}

/// What becomes of a request, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, for a human.
    pub explanation: String,
    /// `namespace/name` of the policy that decided, or of the nearest that did not allow it.
    pub policy: Option<String>,
    /// Which of its rules, counted from 1.
    pub rule: Option<usize>,
}

impl Receiver {
    /// With the law of a workload.
    ///
    /// # Errors
    /// When it is more than a workload can have.
    pub fn new(governing: &Governing, mesh: &Mesh) -> Result<Self, PolicyError> {
        let trust = Trust { local: &mesh.trust_domain, aliases: &mesh.aliases };
        Ok(Self {
            modes: governing.mtls.clone(),
            policies: PolicySet::from_wire(governing.policies.clone(), trust)?,
            normalization: mesh.normalization,
        })
    }

    /// What of the law could not be applied as written, one line each.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        self.policies.complaints()
    }

    /// The law that it applies.
    #[must_use]
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// What becomes of this. `now`: seconds since 1970.
    #[must_use]
    pub fn judge(&self, asked: &Asked, now: u64) -> Judgement {
        match self.facts(asked, now) {
            Ok(facts) => self.decide(&facts, asked.ext_authz.as_ref()),
            Err(refused) => *refused,
        }
    }

    /// What the policies decide on; or the verdict that stands before that.
    ///
    /// # Errors
    /// The refusal of an earlier step.
    pub fn facts(&self, asked: &Asked, now: u64) -> Result<Facts, Box<Judgement>> {
        let mode = self.modes.of(asked.destination.port());
        let proof = if asked.peer.is_some() { Proof::Certificate } else { Proof::Plaintext };
        if !mode.admits(proof) {
            return Err(refused(Verdict::Deny, not_admitted(mode, asked.destination.port())));
        }
        let request = match &asked.head {
            Some(head) => Some(self.request(head, asked, now)?),
            None => None,
        };
        Ok(Facts {
            peer: asked.peer.clone(),
            source: asked.source,
            remote: asked.remote,
            destination: asked.destination,
            sni: asked.sni.clone(),
            request,
        })
    }

    fn request(&self, head: &Head, asked: &Asked, now: u64) -> Result<RequestFacts, Box<Judgement>> {
        let mut facts = understand(head, asked, self.normalization)
            .map_err(|error| refused(Verdict::BadRequest, format!("400 Bad Request: {error}")))?;
        match self.policies.authentication().authenticate(&mut facts, now) {
            Ok(()) => Ok(facts),
            Err(error @ TokenRefused::Invalid { .. }) => {
                Err(refused(Verdict::Unauthorized, format!("401 Unauthorized: {error}")))
            }
            Err(error @ TokenRefused::Audience { .. }) => Err(refused(Verdict::Deny, error.to_string())),
        }
    }

    fn decide(&self, facts: &Facts, ext_authz: Option<&Answer>) -> Judgement {
        let mut answers = Answers::default();
        for _round in 0..MAX_ROUNDS {
            match decide(&self.policies, facts, &answers) {
                Decision::Allow(permit) => return allowed(&permit),
                Decision::Deny(denial) => {
                    return Judgement {
                        verdict: Verdict::Deny,
                        explanation: denial.reason,
                        policy: denial.policy,
                        rule: denial.rule,
                    };
                }
                Decision::Ask(providers) => {
                    for provider in providers {
                        let unasked = || Answer::Failed("nobody says what it would answer".to_owned());
                        answers = answers.with(&provider.name, ext_authz.cloned().unwrap_or_else(unasked));
                    }
                }
            }
        }
        *refused(Verdict::Deny, "the external authorizers are asked again and again".to_owned())
    }
}

fn understand(
    head: &Head,
    asked: &Asked,
    normalization: PathNormalization,
) -> Result<RequestFacts, BadRequest> {
    let is_http1 = head.version < Version::HTTP_2;
    let host = head.host.iter().filter(|_| is_http1).map(|host| (header::HOST.as_str(), host.as_str()));
    let listed = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let raw = request::Head {
        method: method_of(&head.method)?,
        target: &head.target,
        authority: head.host.as_deref().filter(|_| !is_http1),
        version: head.version,
        headers: headers_of(host.chain(listed))?,
        destination: asked.destination,
    };
    request::understand(raw, normalization)
}

fn allowed(permit: &Permit) -> Judgement {
    let Some(by) = &permit.by else {
        return Judgement {
            verdict: Verdict::Allow,
            explanation: "no ALLOW policy selects the workload, so that what no policy denies is allowed"
                .to_owned(),
            policy: None,
            rule: None,
        };
    };
    let (policy, rule) = match by.rsplit_once(" rule ") {
        Some((policy, rule)) => (policy, rule.parse().ok()),
        None => (&**by, None),
    };
    Judgement {
        verdict: Verdict::Allow,
        explanation: format!("policy {by} allows it"),
        policy: Some(policy.to_owned()),
        rule,
    }
}

fn not_admitted(mode: MtlsMode, port: u16) -> String {
    let why = match mode {
        MtlsMode::Disable => "takes plaintext only, and the peer shows a certificate",
        MtlsMode::Strict | MtlsMode::Permissive => "demands mutual TLS, and the peer speaks plaintext",
    };
    format!("the connection is refused: port {port} ({}) {why}", mode.name())
}

fn refused(verdict: Verdict, explanation: String) -> Box<Judgement> {
    Box::new(Judgement { verdict, explanation, policy: None, rule: None })
}
