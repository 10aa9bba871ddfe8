//! May this workload do that to that one? The verdict, where it was written, what each policy makes of it, and what would
//! change it.

use douane_proto::{
    id::WorkloadId,
    law::{Governing, govern},
    mesh,
    policy::doubtful,
    resource::Resource,
    wire,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::policy::{
    asked::{Asked, Head, Mesh, Protocol, Verdict},
    change::{self, Change},
    destination::Destination,
    examine::{self, PolicyReport},
    issuer::{Issuer, IssuerError, Sort},
    receiver::{Judgement, Receiver},
};

/// A question.
#[derive(Debug)]
pub struct Question {
    /// Everything that operators wrote.
    pub resources: Vec<Resource>,
    /// The settings of the mesh.
    pub mesh: Mesh,
    /// Who is asked.
    pub destination: Destination,
    /// What it is asked.
    pub asked: Asked,
    /// The claims of a token that counts as verified.
    pub claims: Option<Map<String, Value>>,
}

/// An answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// `allow`, `deny`, `401` or `400`.
    pub verdict: &'static str,
    /// Is it `allow`?
    pub allowed: bool,
    /// Who asks; absent: plaintext.
    pub from: Option<String>,
    /// Who is asked.
    pub workload: String,
    /// Why.
    pub explanation: String,
    /// The policy that decided, or the nearest that did not allow it.
    pub policy: Option<String>,
    /// Which of its rules, counted from 1.
    pub rule: Option<usize>,
    /// Where that stands: `file:line`.
    pub place: Option<String>,
    /// What gives the other verdict: all of these together; none where policies cannot.
    pub changes: Vec<Change>,
    /// What each policy that selects the workload makes of it.
    pub policies: Vec<PolicyReport>,
    /// What works otherwise than its author may expect.
    pub warnings: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// More than a workload can have.
    #[error(transparent)]
    Policies(#[from] douane_proto::policy::PolicyError),
    /// No token can be made.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// A token where there is no HTTP.
    #[error("an opaque connection carries no token")]
    TokenWithoutRequest,
    /// No rule would look at it.
    #[error("no RequestAuthentication that selects {0} looks at any token")]
    TokenUnseen(String),
}

/// Answers. `now`: seconds since 1970.
///
/// # Errors
/// [`NoAnswer`] when the question cannot be put.
pub fn answer(question: Question, now: u64) -> Result<Answer, NoAnswer> {
    let Question { resources, mesh, destination, mut asked, claims } = question;
    let workload = &destination.workload;
    let mut governing = govern(&resources, &workload.namespace, &workload.labels, &mesh.law);
    if let Some(claims) = claims {
        show_token(claims, &mut governing, &mut asked, &destination.name, now)?;
    }
    let receiver = Receiver::new(&governing, &mesh)?;
    let Judgement { verdict, explanation, policy, rule } = receiver.judge(&asked, now);
    let place = policy.as_ref().and_then(|policy| examine::place(&resources, policy, rule));
    let policies = match receiver.facts(&asked, now) {
        Ok(facts) => examine::report(receiver.policies(), &facts, &resources),
        // It does not come to the policies.
        Err(_) => Vec::new(),
    };
    let situation = change::Situation {
        resources: &resources,
        governing: &governing,
        mesh: &mesh,
        destination: &destination,
    };
    let changes = change::find(situation, &asked, now);
    let mut warnings: Vec<String> = governing.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(receiver.complaints().iter().cloned());
    let declared = match (workload.protocol, &asked.head) {
        (Protocol::Tcp, _) | (_, None) => mesh::Protocol::Tcp,
        (Protocol::Http, Some(_)) => mesh::Protocol::Http1,
        (Protocol::Grpc, Some(_)) => mesh::Protocol::Grpc,
    };
    warnings.extend(doubtful(receiver.policies(), workload.port, declared).iter().map(examine::doubt));
    Ok(Answer {
        verdict: verdict.name(),
        allowed: verdict == Verdict::Allow,
        from: asked.peer.as_ref().map(WorkloadId::principal),
        workload: destination.name,
        explanation,
        policy,
        rule,
        place,
        changes,
        policies,
        warnings,
    })
}

// A token with these claims, signed by a key that takes the place of the issuer's: all else of it is checked as ever.
fn show_token(
    claims: Map<String, Value>,
    governing: &mut Governing,
    asked: &mut Asked,
    workload: &str,
    now: u64,
) -> Result<(), NoAnswer> {
    let head = asked.head.as_mut().ok_or(NoAnswer::TokenWithoutRequest)?;
    let issuer = Issuer::new(now)?;
    let wanted = claims.get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
    let rules = || governing.policies.authentications.iter().flat_map(|law| &law.rules);
    let by_issuer = rules().find(|rule| rule.issuer.is_empty() || rule.issuer == wanted);
    let rule = by_issuer.or(rules().next()).ok_or_else(|| NoAnswer::TokenUnseen(workload.to_owned()))?;
    put(&issuer.mint(Sort::Valid, claims)?, rule, head);
    for rule in governing.policies.authentications.iter_mut().flat_map(|law| &mut law.rules) {
        rule.jwks = issuer.key_set().to_owned();
    }
    Ok(())
}

fn put(token: &str, rule: &wire::JwtRule, head: &mut Head) {
    let usual = wire::TokenHeader { name: "authorization".to_owned(), prefix: "Bearer ".to_owned() };
    match (rule.from_headers.first(), rule.from_params.first(), rule.from_cookies.first()) {
        (Some(header), _, _) => head.headers.push((header.name.clone(), format!("{}{token}", header.prefix))),
        (None, Some(param), _) => {
            let mark = if head.target.contains('?') { '&' } else { '?' };
            head.target = format!("{}{mark}{param}={token}", head.target);
        }
        (None, None, Some(cookie)) => head.headers.push(("cookie".to_owned(), format!("{cookie}={token}"))),
        (None, None, None) => head.headers.push((usual.name, format!("{}{token}", usual.prefix))),
    }
}

/// How much of an answer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The verdict, its reason and what would change it.
    Verdict,
    /// And what each policy makes of it.
    Policies,
}

impl Answer {
    /// For a human.
    #[must_use]
    pub fn text(&self, depth: Depth) -> String {
        let mut lines = Vec::new();
        let from = self.from.as_deref().unwrap_or("a peer without an identity");
        lines.push(format!("{}: {from} -> {}", if self.allowed { "yes" } else { "no" }, self.workload));
        if !matches!(self.verdict, "allow" | "deny") {
            lines.push(format!("answer: {}", self.verdict));
        }
        let place = self.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        lines.push(format!("{place}{}", self.explanation));
        if depth == Depth::Policies {
            lines.push(String::new());
            if self.policies.is_empty() {
                lines.push("no policy was asked".to_owned());
            }
            lines.extend(self.policies.iter().flat_map(PolicyReport::lines));
        }
        lines.extend(self.warnings.iter().map(|warning| format!("note: {warning}")));
        for change in &self.changes {
            lines.push(String::new());
            lines.push(change.what.clone());
            lines.push(String::new());
            lines.extend(change.yaml.lines().map(|line| format!("  {line}")));
        }
        lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}
