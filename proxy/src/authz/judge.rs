//! Decides, asks external authorizers where the law says so, and decides again with what they said; and watches what is in
//! flight when the law changes.

use std::{future::pending, rc::Rc, sync::Arc};

use bytes::Bytes;
use douane_proto::{
    facts::Facts,
    policy::{
        Answer, Answers, Decision, Denial, DenialKind, HeaderChange, Permit, PolicySet, Provider, Shadow,
        audited_by, decide, shadow,
    },
};
use futures_util::future::join_all;
use tokio::sync::watch;

use super::{
    ask::Asker,
    change::apply,
    question::{Question, Said, Shown},
    road::Road,
};
use crate::{
    refusal::{Refusal, Spoken},
    tls::Mtls,
};

/// The law as it changes.
pub type Law = watch::Receiver<Arc<PolicySet>>;

/// What an authorizer allowed may lead to another one; not for ever.
const MOST_ROUNDS: usize = 4;
/// Of a body no more than this is kept for authorizers, whatever their settings say.
const MOST_BODY: usize = 1024 * 1024;

/// Decides. Belongs to one thread.
#[derive(Debug)]
pub struct Judge {
    asker: Asker,
    mtls: Mtls,
    /// What is heard where nobody is asked.
    nobody: Rc<Heard>,
}

/// What a decision allowed.
#[derive(Debug)]
pub struct Allowed {
    /// Its proof.
    pub permit: Permit,
    /// What it was made on; of a request, what is sent on.
    pub facts: Rc<Facts>,
    /// Changes of the answer that authorizers want.
    pub answer: Vec<HeaderChange>,
    /// What authorizers said of it.
    pub said: Rc<Heard>,
}

/// What authorizers said of one request or stream, and who they were.
#[derive(Debug, Default)]
pub struct Heard {
    answers: Answers,
    from: Vec<Arc<Provider>>,
}

/// What the law says for the record only.
#[derive(Debug, Default)]
pub struct Remarks {
    /// The AUDIT policy and rule that hold.
    pub audited_by: Option<Arc<str>>,
    /// What policies in a dry run would have decided.
    pub dry_run: Option<Shadow>,
}

/// The beginning of a body.
#[derive(Debug, Clone)]
pub struct SeenBody {
    /// At least as much as was asked for, if there is as much.
    pub bytes: Bytes,
    /// Is it all?
    pub is_whole: bool,
}

impl Judge {
    /// Reaches authorizers by `road`; says who it is by `mtls`.
    #[must_use]
    pub fn new(road: Road, mtls: Mtls) -> Self {
        Self { asker: Asker::new(road), mtls, nobody: Rc::default() }
    }

    /// Decides by the newest law. What `law` has seen is then exactly what was decided on, so that [`Self::revoked`] misses
    /// no change. What it says for the record goes into `remarks`, whatever it decides. `see_body` reads the beginning of the request's body, where an authorizer must see it.
    ///
    /// # Errors
    /// [`Refusal`]: denied, by the law or by an authorizer, or an authorizer cannot see the body.
    pub async fn authorize(
        &self,
        law: &mut Law,
        facts: Facts,
        remarks: &mut Remarks,
        see_body: impl AsyncFnMut(usize) -> Result<SeenBody, Refusal>,
    ) -> Result<Allowed, Refusal> {
        let decision = remark(law, &facts, &Answers::default(), remarks);
        match decision {
            Decision::Allow(permit) => {
                let said = Rc::clone(&self.nobody);
                Ok(Allowed { permit, facts: Rc::new(facts), answer: Vec::new(), said })
            }
            Decision::Deny(denial) => Err(denial.into()),
            // Boxed, so that requests that ask nobody carry no room for it.
            Decision::Ask(providers) => {
                let asked = Asked { providers, heard: Heard::default() };
                Box::pin(self.inquire(law, facts, asked, remarks, see_body)).await
            }
        }
    }

    /// Waits until a change of the law forbids what was admitted with these facts. What authorizers said is one of them:
    /// only who is new, or defined anew, is asked, without the body, which has gone. So that no change of the law brings
    /// as many questions at once as there are streams.
    pub async fn revoked(self: Rc<Self>, mut law: Law, facts: Rc<Facts>, mut said: Rc<Heard>) -> Refusal {
        loop {
            if law.changed().await.is_err() {
                // The writer is gone: the last law stays.
                return pending().await;
            }
            let no_body = async |_| Ok(SeenBody { bytes: Bytes::new(), is_whole: true });
            let (decision, heard) = {
                let policies = law.borrow_and_update();
                let heard = said.of_those_in(&policies);
                (decide(&policies, &facts, &heard.answers), heard)
            };
            let decided = match decision {
                Decision::Allow(_) => continue,
                Decision::Deny(denial) => return denial.into(),
                Decision::Ask(providers) => {
                    let facts = (*facts).clone();
                    let asked = Asked { providers, heard };
                    Box::pin(self.inquire(&mut law, facts, asked, &mut Remarks::default(), no_body)).await
                }
            };
            match decided {
                Ok(allowed) => said = allowed.said,
                Err(refusal) => return refusal,
            }
        }
    }

    async fn inquire(
        &self,
        law: &mut Law,
        mut facts: Facts,
        Asked { mut providers, mut heard }: Asked,
        remarks: &mut Remarks,
        mut see_body: impl AsyncFnMut(usize) -> Result<SeenBody, Refusal>,
    ) -> Result<Allowed, Refusal> {
        let local = self.mtls.identity().svid.leaf.id.clone();
        let (mut spoken, mut answer) = (Vec::new(), Vec::new());
        for _ in 0..MOST_ROUNDS {
            let wanted = providers.iter().map(|provider| wanted(provider)).max().unwrap_or_default();
            let body = match wanted {
                1.. if facts.request.is_some() => Some(see_body(wanted).await?),
                _ => None,
            };
            let shown = providers
                .iter()
                .map(|provider| shown(provider, body.as_ref()))
                .collect::<Result<Vec<_>, _>>()?;
            let question = Question { facts: &facts, local: &local };
            let asked =
                providers.iter().zip(shown).map(|(provider, body)| self.asker.ask(provider, question, body));
            let said = join_all(asked).await;
            for (provider, said) in providers.iter().zip(said) {
                let said = match said {
                    Ok(Said::Allow { request: changes, answer: more }) => {
                        if let Some(request) = &mut facts.request {
                            apply(&mut request.headers, &changes);
                        }
                        answer.extend(more);
                        Answer::Allow
                    }
                    Ok(Said::Deny(how)) => {
                        spoken.push((provider.name.clone(), how));
                        Answer::Deny
                    }
                    Err(why) => Answer::Failed(why),
                };
                heard.hear(provider, said);
            }
            // By the newest law: it may have changed meanwhile.
            match remark(law, &facts, &heard.answers, remarks) {
                Decision::Allow(permit) => {
                    return Ok(Allowed { permit, facts: Rc::new(facts), answer, said: Rc::new(heard) });
                }
                Decision::Deny(denial) => return Err(refusal(denial, spoken)),
                Decision::Ask(more) => providers = more,
            }
        }
        Err(Denial::without_policy("external authorizers lead from one to the next without an end").into())
    }
}

// Who must be asked, and what others have said.
struct Asked {
    providers: Vec<Arc<Provider>>,
    heard: Heard,
}

impl Heard {
    fn hear(&mut self, provider: &Arc<Provider>, answer: Answer) {
        self.answers = std::mem::take(&mut self.answers).with(&provider.name, answer);
        self.from.push(Arc::clone(provider));
    }

    // Of those whom the law still defines as they were when they were asked.
    fn of_those_in(&self, policies: &PolicySet) -> Self {
        let mut still = Self::default();
        for provider in &self.from {
            let is_same = policies.provider(&provider.name).is_some_and(|now| now == provider);
            if let Some(answer) = self.answers.of(&provider.name).filter(|_| is_same) {
                still.hear(provider, answer.clone());
            }
        }
        still
    }
}

fn remark(law: &mut Law, facts: &Facts, answers: &Answers, remarks: &mut Remarks) -> Decision {
    let policies = law.borrow_and_update();
    *remarks = Remarks { audited_by: audited_by(&policies, facts), dry_run: shadow(&policies, facts) };
    decide(&policies, facts, answers)
}

fn wanted(provider: &Provider) -> usize {
    usize::try_from(provider.max_request_bytes).unwrap_or(MOST_BODY).min(MOST_BODY)
}

// What one of several authorizers, each with settings of its own, sees of the body.
fn shown(provider: &Provider, body: Option<&SeenBody>) -> Result<Option<Shown>, Refusal> {
    let (most, Some(SeenBody { bytes, is_whole })) = (wanted(provider), body) else { return Ok(None) };
    if most == 0 {
        return Ok(None);
    }
    let is_partial = !is_whole || bytes.len() > most;
    if is_partial && !provider.allow_partial_message {
        return Err(Refusal::BodyTooLarge(most));
    }
    Ok(Some(Shown { bytes: bytes.slice(..most.min(bytes.len())), is_partial }))
}

fn refusal(denial: Denial, spoken: Vec<(String, Spoken)>) -> Refusal {
    let DenialKind::Authorizer { provider } = &denial.kind else { return denial.into() };
    let how = spoken.into_iter().find(|(name, _)| name == provider).map(|(_, how)| how);
    Refusal::AuthorizerDenied { denial, how: Box::new(how.unwrap_or_default()) }
}
