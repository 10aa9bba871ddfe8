//! Decides, asks external authorizers where the law says so, and decides again with what they said; and watches what is in
//! flight when the law changes.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use douane_proto::{
    facts::Facts,
    policy::{
        Answer, Answers, Decision, Denial, DenialKind, HeaderChange, Permit, PolicySet, Provider, Shadow,
        audited_by, decide, shadow,
    },
};
use futures_util::future::join_all;
use tokio::{sync::watch, time::Instant};

use super::{
    ask::Asker,
    change::apply,
    heard::Heard,
    in_flight::{InFlight, Running, Times, look_every},
    question::{Question, Said, Shown},
    road::Road,
};
use crate::{
    config::Limits,
    refusal::{Refusal, Spoken},
    tls::Mtls,
};

/// The law as it changes.
pub type Law = watch::Receiver<Arc<PolicySet>>;

/// What an authorizer allowed may lead to another one; not for ever.
const MOST_ROUNDS: usize = 4;
/// Of a body no more than this is kept for authorizers, whatever their settings say.
const MOST_BODY: usize = 1024 * 1024;

/// Of what runs, so many are decided on again before others get their turn: about a millisecond's work.
const AT_ONCE: usize = 256;

/// Decides. Belongs to one thread.
#[derive(Debug)]
pub struct Judge {
    law: Law,
    asker: Asker,
    mtls: Mtls,
    in_flight: InFlight,
    /// What is heard where nobody is asked.
    nobody: Rc<Heard>,
}

/// What a decision allowed; the facts hold what is sent on.
#[derive(Debug)]
pub struct Allowed {
    /// Its proof.
    pub permit: Permit,
    /// Changes of the answer that authorizers want.
    pub answer: Vec<HeaderChange>,
    said: Rc<Heard>,
}

/// What a decision comes to at once.
#[derive(Debug)]
pub enum Judged {
    /// It may pass.
    Allowed(Allowed),
    /// Authorizers have to be asked.
    Ask(Asked),
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
    /// Decides by `law`; reaches authorizers by `road`; says who it is by `mtls`.
    #[must_use]
    pub fn new(law: Law, road: Road, mtls: Mtls) -> Self {
        Self { law, asker: Asker::new(road), mtls, in_flight: InFlight::default(), nobody: Rc::default() }
    }

    /// The newest law.
    #[must_use]
    pub fn law(&self) -> watch::Ref<'_, Arc<PolicySet>> {
        self.law.borrow()
    }

    /// Decides by the newest law. What was allowed is looked at again whenever the law changes ([`Self::watch`]). What the
    /// law says for the record goes into `remarks`, whatever it decides.
    ///
    /// # Errors
    /// [`Refusal`]: denied by the law.
    pub fn decide(&self, one: &Rc<Running>, remarks: &mut Remarks) -> Result<Judged, Refusal> {
        match self.remark(&one.facts, &Answers::default(), remarks) {
            Decision::Allow(permit) => {
                let said = Rc::clone(&self.nobody);
                self.in_flight.admit(one, Rc::clone(&said));
                Ok(Judged::Allowed(Allowed { permit, answer: Vec::new(), said }))
            }
            Decision::Deny(denial) => Err(denial.into()),
            Decision::Ask(providers) => Ok(Judged::Ask(Asked { providers, heard: Heard::default() })),
        }
    }

    /// Asks the authorizers that the law names, and decides with what they say; they may change what is sent on. `see_body`
    /// reads the beginning of the request's body, where an authorizer must see it.
    ///
    /// # Errors
    /// [`Refusal`]: denied, by the law or by an authorizer, or an authorizer cannot see the body.
    pub async fn ask(
        &self,
        one: &mut Rc<Running>,
        asked: Asked,
        remarks: &mut Remarks,
        see_body: impl AsyncFnMut(usize) -> Result<SeenBody, Refusal>,
    ) -> Result<Allowed, Refusal> {
        let mut facts = one.facts.clone();
        let allowed = self.inquire(&mut facts, asked, remarks, see_body).await?;
        *one = Rc::new(Running::new(facts));
        // Nothing was awaited since the decision: no change of the law falls in between.
        self.in_flight.admit(one, Rc::clone(&allowed.said));
        Ok(allowed)
    }

    /// Looks at everything in flight again whenever the law changes, and ends what has had its time; for ever. What
    /// authorizers said is a fact: only who is new, or defined anew, is asked, without the body, which has gone. So that
    /// no change of the law brings as many questions at once as there are streams.
    pub async fn watch(self: Rc<Self>, limits: Limits) {
        let times = Times { age: limits.stream_age, total: limits.request, rest: limits.stream_idle };
        let shortest = times.age.min(times.rest).min(times.total.unwrap_or(Duration::MAX));
        let mut law = self.law.clone();
        law.mark_unchanged();
        // Once its writer is gone, the last law stays.
        let mut may_change = true;
        loop {
            tokio::select! {
                changed = law.changed(), if may_change => match changed {
                    Ok(()) => self.look_again().await,
                    Err(_) => may_change = false,
                },
                () = tokio::time::sleep(look_every(shortest)) => {}
            }
            self.in_flight.end_overdue(times, Instant::now());
        }
    }

    async fn look_again(self: &Rc<Self>) {
        for (number, one) in self.in_flight.all().into_iter().enumerate() {
            let policies = Arc::clone(&self.law.borrow());
            let heard = one.said().of_those_in(&policies);
            match decide(&policies, &one.facts, &heard.answers) {
                Decision::Allow(_) => {}
                Decision::Deny(denial) => one.end(denial.into()),
                Decision::Ask(providers) => {
                    tokio::task::spawn_local(Rc::clone(self).ask_again(one, Asked { providers, heard }));
                }
            }
            if number % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn ask_again(self: Rc<Self>, one: Rc<Running>, asked: Asked) {
        let no_body = async |_| Ok(SeenBody { bytes: Bytes::new(), is_whole: true });
        let mut facts = one.facts.clone();
        match self.inquire(&mut facts, asked, &mut Remarks::default(), no_body).await {
            Ok(allowed) => one.hear(allowed.said),
            Err(refusal) => one.end(refusal),
        }
    }

    async fn inquire(
        &self,
        facts: &mut Facts,
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
            let question = Question { facts: &*facts, local: &local };
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
            match self.remark(facts, &heard.answers, remarks) {
                Decision::Allow(permit) => {
                    return Ok(Allowed { permit, answer, said: Rc::new(heard) });
                }
                Decision::Deny(denial) => return Err(refusal(denial, spoken)),
                Decision::Ask(more) => providers = more,
            }
        }
        Err(Denial::without_policy("external authorizers lead from one to the next without an end").into())
    }

    fn remark(&self, facts: &Facts, answers: &Answers, remarks: &mut Remarks) -> Decision {
        let policies = self.law.borrow();
        *remarks = Remarks { audited_by: audited_by(&policies, facts), dry_run: shadow(&policies, facts) };
        decide(&policies, facts, answers)
    }
}

/// Who must be asked, and what others have said.
#[derive(Debug)]
pub struct Asked {
    providers: Vec<Arc<Provider>>,
    heard: Heard,
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
